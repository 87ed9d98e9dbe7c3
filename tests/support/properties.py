"""How many examples a property is tried with: few in `make test`, and all in `make test-all`."""

from hypothesis import settings


def examples(count: int) -> int:
    """`count` with the profile `all`; with `quick` a fifth of it, or 5 if that is more."""
    share = settings().max_examples / settings.get_profile("all").max_examples
    return max(min(count, 5), round(count * share))
