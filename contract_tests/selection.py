"""Which tests are run, by their names and marks."""

from typing import Final

import pytest

from contract_tests.options import Options
from contract_tests.oracle.rules import EXTENSIONS, RULES

MARKERS: Final = (
    "rule(*ids): the rules of the Upscaling API that a test covers",
    "billable: sends requests that may cost money",
    "strict: judges what others than OctoAI had to choose",
    "together: sends several requests at once",
    "image_url: needs the URL of an image",
    "http1: needs HTTP/1.1, since httpx2 reads no refusal by HTTP/2 before all of a body is sent",
    "model(name): requests this model",
)
PACKAGE: Final = __name__.partition(".")[0]


def is_contract_test(item: pytest.Item) -> bool:
    """Whether it is one of this package, and not of the suite that it is run with."""
    module = item.getparent(pytest.Module)
    return module is not None and module.obj.__name__.startswith(f"{PACKAGE}.")


def name(item: pytest.Item) -> str:
    """The id of a test, which is the same wherever the package is installed."""
    return f"{item.path.name}::{item.nodeid.partition('::')[2]}"


def title(item: pytest.Item) -> str:
    """What is tested: the name of the function in words."""
    named = getattr(item, "originalname", None) or item.name
    return str(named).removeprefix("test_").replace("_", " ")


def rules(item: pytest.Item) -> tuple[str, ...]:
    """The ids of the rules that a test covers, in the order of the rules."""
    named = {rule for mark in item.iter_markers("rule") for rule in mark.args}
    return tuple(rule for rule in RULES if rule in named)


def is_billable(item: pytest.Item) -> bool:
    """Whether a test sends requests that may cost money."""
    return _has(item, "billable")


def position(item: pytest.Item) -> tuple[bool, bool]:
    """By what tests are ordered: what costs nothing comes first, and the extensions last.

    So a small budget is spent on what every implementation has.
    """
    return bool(EXTENSIONS & set(rules(item))), is_billable(item)


def exclusion_reason(item: pytest.Item, options: Options) -> str:
    """Why a test is not run, as an addition to its number, or an empty string."""
    required = {model for mark in item.iter_markers("model") for model in mark.args}
    reasons = {
        "of the level strict": _has(item, "strict") and options.level != "strict",
        "of rules that are not judged": not set(rules(item)) - options.skipped,
        "for --concurrency 2 or more": _has(item, "together") and options.concurrency == 1,
        "for --image": _has(item, "image_url") and options.image is None,
        "for HTTP/1.1": _has(item, "http1") and options.http2,
        "of models that --model leaves out": options.models and not required <= {*options.models},
    }
    return next((reason for reason, applies in reasons.items() if applies), "")


def _has(item: pytest.Item, mark: str) -> bool:
    return item.get_closest_marker(mark) is not None
