"""Server-sent events as a client reads them (HTML Living Standard, 9.2.6)."""

import json
import re
from dataclasses import dataclass
from typing import Any, Final

LINE_END: Final = re.compile("\r\n|\r|\n")


@dataclass(frozen=True)
class Event:
    """One event; `id` is the last one that came, in it or before it."""

    name: str
    id: str
    data: dict[str, Any]


def parse_events(body: bytes) -> list[Event]:
    """The events in a whole response; raises ValueError if it is no UTF-8, or data no JSON object.

    What is not ended by an empty line is no event; comments, which keep proxies awake, and unknown
    fields are ignored.
    """
    events: list[Event] = []
    name, last_id, data = "", "", list[str]()
    for line in LINE_END.split(body.decode("utf-8-sig"))[:-1]:
        if not line:
            if data:
                events.append(Event(name or "message", last_id, _object("\n".join(data))))
            name, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "id":
            last_id = value
        elif field == "data":
            data.append(value)
    return events


def _object(text: str) -> dict[str, Any]:
    parsed = json.loads(text)
    if not isinstance(parsed, dict):
        raise ValueError("the data of an event is no JSON object")  # noqa: TRY004  as other text
    return parsed
