"""How many examples a property is tried with: few in `make test`, and all in `make test-all`."""

from hypothesis import settings


def examples(count: int, quick: int | None = None) -> int:
    """`count` with the profile `all`; with `quick` so many, or a fifth of it and 5 at least."""
    if settings().max_examples == settings.get_profile("all").max_examples:
        return count
    return quick or max(min(count, 5), count // 5)
