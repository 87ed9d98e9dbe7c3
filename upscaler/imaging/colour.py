"""What must be known of a colour profile before it is left to a colour engine.

A profile may hold a program of any number of elements (ICC.1:2022, the tags DToB0 to DToB3 and the
multiProcessElementsType). Little CMS prefers it to the profile's tables and runs it for tens of
thousands of colours: one of a megabyte takes minutes. The tables have a fixed cost, and a profile
with a program has them, too, for engines that know no programs.
"""

from typing import Final

PROGRAMS: Final = b"D2B"
"""How the tags of programs from a device's colours to the profile's own begin."""

_COUNT_AT: Final = 128
_TAG_BYTES: Final = 12
_MOST_TAGS: Final = 100
"""Little CMS reads no profile with more."""


def without_programs(profile: bytes) -> bytes:
    """The same profile with its programs under names that no engine looks for."""
    tame = bytearray(profile)
    tags_at = _COUNT_AT + 4
    count = int.from_bytes(tame[_COUNT_AT:tags_at], "big")
    for at in range(tags_at, tags_at + min(count, _MOST_TAGS) * _TAG_BYTES, _TAG_BYTES):
        if tame[at : at + 3] == PROGRAMS:
            tame[at : at + 3] = b"---"
    return bytes(tame)
