"""Which form of an answer an Accept header asks for (RES-8; RFC 9110, 12.5.1)."""

from typing import Final, NamedTuple

JSON: Final = "application/json"
FILES: Final = {"png": "image/png", "jpeg": "image/jpeg"}
"""The media types of a picture's file, by its encoding."""


class Range(NamedTuple):
    """A media range, and how much whoever accepts it likes it: from 0, not at all, to 1."""

    name: str
    quality: float

    @property
    def is_one(self) -> bool:
        kind, slash, subtype = self.name.partition("/")
        return bool(kind and slash and subtype)

    def covers(self, media_type: str) -> bool:
        return self.name in ("*/*", f"{media_type.partition('/')[0]}/*", media_type)

    @property
    def exactness(self) -> int:
        return 0 if self.name == "*/*" else 1 if self.name.endswith("/*") else 2


def chosen(accept: str | None, asked: str) -> str | None:
    """The media type of the answer, or None if none is accepted.

    `asked` is the encoding that the body asks for: of files that are liked alike, it is the one.
    """
    ranges = list(map(_range, filter(None, map(str.strip, (accept or "").split(",")))))
    if not ranges or not all(each.is_one for each in ranges):
        return JSON  # a header that says nothing, or cannot be read, counts as none
    # The later ones win where all else is equal.
    offered = sorted(FILES, key=lambda encoding: encoding == asked)
    likings = {name: _liking(name, ranges) for name in [*(FILES[each] for each in offered), JSON]}
    best = max(likings.values())
    if best[0] == 0:
        return None
    return [name for name, liking in likings.items() if liking == best][-1]


def _range(text: str) -> Range:
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    weights = [part[2:] for part in parameters if part.startswith("q=")]
    return Range(name, float(weights[0]) if weights else 1.0)


def _liking(media_type: str, ranges: list[Range]) -> tuple[float, int]:
    """How much it is liked, by the range that names it most exactly, and how exactly."""
    covering = [each for each in ranges if each.covers(media_type)]
    if not covering:
        return 0.0, 0
    named = max(covering, key=lambda each: each.exactness)
    return named.quality, named.exactness
