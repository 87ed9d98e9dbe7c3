"""One of OctoAI's clients for Python, unchanged, called as lines of JSON say.

    python -m tests.support.clients.drive octoai|octoai-sdk

Both are imported as `octoai`, so which one it is depends on where Python looks first.
"""

import faulthandler
import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Final

import httpx
import octoai.client

NEWER: Final = "octoai"
TIMEOUT_S: Final = 60
GIVEN_UP_S: Final = 100
"""How long a call may take: the longest retries for 20 seconds, and a request has TIMEOUT_S."""


def made(asked: dict[str, Any]) -> Any:
    """A client with a token, which the newer one sends only with its `carrier`."""
    token = asked["token"]
    if sys.argv[1] != NEWER:
        older: Any = octoai.client
        return older.Client(token=token)
    if asked.get("carrier") is None:
        return octoai.client.OctoAI(api_key=token)
    headers = {"Authorization": f"Bearer {token}"}
    carrier = httpx.Client(headers=headers, timeout=TIMEOUT_S, **asked["carrier"])
    return octoai.client.OctoAI(api_key=token, httpx_client=carrier)


def future_of(asked: dict[str, Any]) -> Any:
    return octoai.client.InferenceFuture(**asked["future"])


CALLS: Final[dict[str, Callable[[Any, dict[str, Any]], Any]]] = {
    "infer": lambda client, asked: client.infer(asked["url"], asked["inputs"]),
    "infer_async": lambda client, asked: vars(client.infer_async(asked["url"], asked["inputs"])),
    "is_future_ready": lambda client, asked: client.is_future_ready(future_of(asked)),
    "get_future_result": lambda client, asked: client.get_future_result(future_of(asked)),
    "health_check": lambda client, asked: client.health_check(asked["url"]),
}


def told(asked: dict[str, Any]) -> dict[str, Any]:
    """The result of a call, or the error that it raised with all of its attributes."""
    try:
        return {"answer": CALLS[asked["call"]](made(asked), asked)}
    except Exception as error:  # whatever a client raises
        response = getattr(error, "response", None)
        says = f"{error} {response.text}" if response is not None else str(error)
        return {"error": type(error).__name__, "says": says}


def say(what: object) -> None:
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


def main() -> None:
    assert hasattr(octoai.client, "OctoAI") == (sys.argv[1] == NEWER), octoai.client.__file__
    say(version(sys.argv[1]))
    for line in sys.stdin:
        # What a call waits for that never ends is said, and not only that a test took too long.
        faulthandler.dump_traceback_later(GIVEN_UP_S, exit=True)
        say(told(json.loads(line)))
        faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
