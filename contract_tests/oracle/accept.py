"""The media type that an Accept header asks for (RES-8; RFC 9110, 12.5.1)."""

from typing import Final, NamedTuple

from contract_tests.oracle.values import FILES

JSON: Final = "application/json"


class MediaRange(NamedTuple):
    """A media range, and its quality from 0, not acceptable, to 1."""

    name: str
    quality: float

    @property
    def valid(self) -> bool:
        kind, slash, subtype = self.name.partition("/")
        return bool(kind and slash and subtype)

    @property
    def precedence(self) -> int:
        """The most specific range that covers a media type decides on its quality."""
        return 0 if self.name == "*/*" else 1 if self.name.endswith("/*") else 2

    def covers(self, media_type: str) -> bool:
        return self.name in ("*/*", f"{media_type.partition('/')[0]}/*", media_type)


def negotiate(accept: str | None, encoding: str) -> str | None:
    """The media type of the response, or None if nothing is acceptable.

    `encoding` is the one that the request names: among files of equal quality it is chosen.
    """
    ranges = list(map(_parse_range, filter(None, map(str.strip, (accept or "").split(",")))))
    if not ranges or not all(each.valid for each in ranges):
        return JSON  # a header that is empty or cannot be parsed counts as absent
    # The last one wins where all else is equal: JSON, and then the named encoding.
    offered = [FILES[each] for each in sorted(FILES, key=lambda name: name == encoding)]
    preferences = {name: _preference(name, ranges) for name in [*offered, JSON]}
    best = max(preferences.values())
    if best[0] == 0:
        return None
    return [name for name, preference in preferences.items() if preference == best][-1]


def _parse_range(text: str) -> MediaRange:
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    qualities = [part[2:] for part in parameters if part.startswith("q=")]
    return MediaRange(name, float(qualities[0]) if qualities else 1.0)


def _preference(media_type: str, ranges: list[MediaRange]) -> tuple[float, int]:
    """Quality and precedence of the range that decides on a media type; zeros if none does."""
    covering = [each for each in ranges if each.covers(media_type)]
    if not covering:
        return 0.0, 0
    deciding = max(covering, key=lambda each: each.precedence)
    return deciding.quality, deciding.precedence
