"""The contract tests find nothing wrong with `upscaler serve`."""

import sys
from pathlib import Path
from typing import Final

import pytest

from tests.cli.test_serve import served
from tests.support import shallow_serve
from tests.support.contract_cli import run_cli

pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.timeout(1800)]

SHALLOW: Final = (sys.executable, shallow_serve.__file__)
"""Networks that cost hardly anything: so all six models are asked for, in all sizes."""


def test_the_service_conforms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its store on disk. There are no networks for faces, of which it else says a 503."""
    monkeypatch.setenv("UPSCALER_FACE_ENHANCE", "ignore")
    monkeypatch.setenv("UPSCALER_DATA", str(tmp_path / "data"))
    with served(tmp_path, "Some-Token", SHALLOW) as service:
        # Behind nginx, without a network, the service is given more: tests/service/test_root_path.
        options = ("--level", "strict", "--concurrency", "2", "--max-examples", "6")
        result = run_cli(service.url, "Some-Token", *options)
    assert result.status == 0, result.output
    verdicts = {rule["id"]: rule["verdict"] for rule in result.report["rules"]}
    assert set(verdicts.values()) == {"conforms"}, verdicts
    left_out = {reason for reason, count in result.report["left_out"].items() if count}
    assert left_out == {"for --image"}


def test_trained_networks_keep_what_is_in_a_picture(tmp_path: Path) -> None:
    """RES-2, by every kind of picture. The model is the fastest whose weights are installed."""
    options = ("--level", "strict", "--only", "RES-2", "--model", "real-esrgan-animevideo-v3",
               "--max-examples", "5")  # fmt: skip
    with served(tmp_path, "Some-Token") as service:
        result = run_cli(service.url, "Some-Token", *options)
    assert result.status == 0, result.output
