"""The contract tests find nothing wrong with `upscaler serve`, on networks with trained weights."""

from pathlib import Path

import pytest

from tests.cli.test_serve import served
from tests.support.contract_cli import run_cli

pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.timeout(1800)]

MODELS = ("real-esrgan-animevideo-v3", "real-esrgan-x4-plus")
"""The fastest, where it does not matter, and the default; the weights of both are installed."""


def test_the_service_conforms(tmp_path: Path) -> None:
    options = ("--level", "strict", "--max-examples", "3", "--concurrency", "2")
    with served(tmp_path, "Some-Token") as service:
        result = run_cli(service.url, "Some-Token", *options, "--model", *MODELS)
    assert result.status == 0, result.output
    verdicts = {rule["id"]: rule["verdict"] for rule in result.report["rules"]}
    assert set(verdicts.values()) == {"conforms"}, verdicts
    left_out = {reason for reason, count in result.report["left_out"].items() if count}
    assert left_out == {"of models that --model leaves out", "for --image"}
