"""The contract tests find what is wrong, and find nothing where nothing is.

Of the seeded defects these are the ones that the first who wrote about such tests named, and one
for each rule. `python -m benchmarks.defects` tries all, and prints docs/defects.md.
"""

from typing import Final

import pytest

from benchmarks.defects import NAMED, judge_defect
from contract_tests.oracle.rules import RULES
from mock_server.mock import Mock
from mock_server.serving.connection import MockConnection
from tests.contract_tests.defects import DEFECTS, TOKEN, defective
from tests.support.contract_cli import run_cli
from tests.support.service import running
from upscaler.formats import ImageEncoding
from upscaler.settings import Settings

CHOSEN: Final = (
    "token-by-prefix",
    "content-type-ignored",
    "unknown-header-refused",
    "not-an-object",
    "method-404",
    "json-nan-500",
    "both-pictures-taken",
    "two-sizes-taken",
    "null-picture-is-given",
    "scale-0-taken",
    "scale-text-refused",
    "height-0-taken",
    "model-default-other",
    "encoding-always-jpeg",
    "face-enhance-by-truth",
    "unknown-field-ignored",
    "first-error-only",
    "input-width-255-taken",
    "input-height-2049-taken",
    "input-blamed-on-scale",
    "output-height-8192-refused",
    "output-computed-width-8193-taken",
    "rounded-half-even",
    "scale-in-floats",
    "sides-swapped",
    "base64-url-safe",
    "base64-prefix-refused",
    "exif-ignored",
    "picture-white",
    "picture-previous",
    "picture-bgr",
    "picture-mirrored",
    "alpha-dropped",
    "result-without-removed",
    "removed-with-picture",
    "error-400",
    "error-detail-text",
    "error-with-value-in-msg",
    "request-id-missing",
    "accept-ignored",
    "healthcheck-with-token",
    "async-refuses-later",
    "poll-never-completed",
    "result-of-the-latest",
    "result-only-once",
    "async-body-of-32-mib",
    "id-counted",
    "poll-without-token",
    "init-image-of-4-mb",
    "answer-of-6-mb",
    "capped-at-native-scale",
    "orientation-left",
    "output-limit-before-rounding",
    "bearer-in-lower-case-refused",
    "chunked-refused",
    "json-escape-refused",
    "json-with-byte-order-mark",
    "accept-with-case",
    "accept-first-line-only",
    "503-without-retry-after",
    "cached-by-request-id",
    "model-left-over",
    "results-of-one-worker",
    "key-alone-counts",
    "delete-leaves-it",
    "list-first-page-only",
    "list-without-token",
    "events-with-falling-rows",
    "webhook-of-another-secret",
    "webhook-in-milliseconds",
    "batch-as-a-whole",
)
QUICK: Final = (
    "token-by-prefix",
    "not-an-object",
    "two-sizes-taken",
    "scale-0-taken",
    "model-default-other",
    "input-width-255-taken",
    "output-height-8192-refused",
    "rounded-half-even",
    "exif-ignored",
    "accept-ignored",
    "result-only-once",
    "list-without-token",
)
"""Those that `make test` plants."""
PARAMS: Final = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CHOSEN
]


@pytest.mark.parametrize("name", PARAMS)
def test_a_defect_is_found(name: str) -> None:
    """By the tests of a rule that it breaks."""
    rule = next(defect.rules[0] for defect in DEFECTS if defect.name == name)
    row = judge_defect(name, "--only", rule)
    assert row.as_planted, f"it is not found: {row.defect.mistake}"


def test_a_missing_column_is_found_where_nothing_is_rounded() -> None:
    """At the level documented, too, where another rounding is allowed."""
    row = judge_defect("whole-width-minus-1", "--level", "documented", "--only", "REQ-16")
    assert row.rules == ("REQ-16",)


def test_the_chosen_defects_are_of_every_rule() -> None:
    chosen = [defect for defect in DEFECTS if defect.name in CHOSEN]
    assert len(chosen) == len(CHOSEN) >= 40
    assert set(QUICK) < set(CHOSEN)
    assert {rule for defect in chosen for rule in defect.rules} == set(RULES)


@pytest.mark.first(1)
@pytest.mark.parametrize("options", [(), ("--level", "strict", "--concurrency", "4")])
def test_nothing_is_found_wrong_with_the_mock(options: tuple[str, ...]) -> None:
    with running(Mock(tokens=[TOKEN]).app, MockConnection) as url:
        result = run_cli(url, TOKEN, *options)
    assert result.status == 0, result.output


@pytest.mark.slow
def test_nothing_is_found_wrong_with_a_mock_whose_default_is_jpeg() -> None:
    settings = Settings(tokens=(TOKEN,), default_encoding=ImageEncoding.JPEG)
    with running(Mock(settings=settings).app, MockConnection) as url:
        options = ("--level", "strict", "--only", "REQ-9", "RES-2")
        result = run_cli(url, TOKEN, *options, "--default-encoding", "jpeg")
        assert result.status == 0, result.output
        assert run_cli(url, TOKEN, *options).status == 1


@pytest.mark.slow
def test_a_target_without_ids_is_judged_in_all_other_respects() -> None:
    with defective(NAMED["request-id-missing"]) as served:
        result = run_cli(served.url, served.token, "--level", "strict", "--max-examples", "2")
    assert result.status == 1, result.output
    verdicts = {rule["id"]: rule["verdict"] for rule in result.report["rules"]}
    assert verdicts.pop("RES-6") == "broken"
    assert set(verdicts.values()) <= {"conforms", "not tested"}, result.output
