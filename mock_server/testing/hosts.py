"""OctoAI's real hosts, which are guarded."""

from typing import Final

HOSTS: Final = ("octoai.run", "octoai.cloud", "octo.ai")
"""OctoAI's domains; the hosts below them are guarded, too."""
_SUFFIXES: Final = tuple(f".{host}" for host in HOSTS)


def name_of(host: object) -> str:
    """Return the name of a host as lookups take it: as text or bytes, perhaps absolute."""
    text = host.decode("ascii", "replace") if isinstance(host, bytes | bytearray) else str(host)
    return text.lower().rstrip(".")


def is_guarded(host: object) -> bool:
    """Return whether a host is below one of `HOSTS`."""
    return f".{name_of(host)}".endswith(_SUFFIXES)
