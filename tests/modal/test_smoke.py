"""What is tried of a deployment, here of services on this machine."""

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest

from tests.support.service import SETTINGS, TOKENS, Resizer, Slow, running
from upscaler.api.sizes import Size
from upscaler.imaging.pixels import Pixels
from upscaler.modal import smoke
from upscaler.modal.smoke import Sizes, Smoke
from upscaler.models import UpscalingModel
from upscaler.service.app import create_app
from upscaler.service.backend import LocalBackend, Progress, Upscaler

SMALL = Sizes(usual=(256, 2), slow=(256, 2), largest=(256, 4), crowd=4, warm=2)


def told(
    upscaler: Upscaler, token: str = TOKENS[0], redeploy_s: float = 0.0
) -> tuple[bool, dict[str, tuple[str, str]]]:
    """Whether all checks passed, and by name the result of each and what was seen."""
    lines: list[str] = []
    with running(create_app(LocalBackend(upscaler), SETTINGS)) as url:
        tried = Smoke(url, token, SMALL, containers=3, redeploy_s=redeploy_s)
        try:
            passed = smoke.report(tried, lines.append)
        finally:
            tried.close()
    assert not any(token in line for line in lines)
    rows = [re.split(r" (?<!\\)\| ", line.strip("| ")) for line in lines[2:]]
    return passed, {name: (result, seen) for name, result, seen in rows}


def failed(rows: dict[str, tuple[str, str]]) -> set[str]:
    return {name for name, (result, _) in rows.items() if result == "**failed**"}


def test_all_checks_pass_where_all_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    began = count()
    monkeypatch.setattr(Smoke, "_started", lambda _: next(began))
    passed, rows = told(Resizer(), redeploy_s=0.1)
    assert passed, rows
    assert {result for result, _ in rows.values()} == {"passed"}
    assert len(rows) == len(Smoke("http://x", "x").checks) + 1
    assert rows["a redeploy meanwhile"][1].startswith("1 pictures")
    assert re.search(r"completed; \d+ polls", rows["an asynchronous picture, and its polls"][1])
    assert "4 made, 0 told to come again" in rows["more pictures than GPUs"][1]


@pytest.mark.slow
def test_a_silence_that_clients_do_not_wait_for_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke, "SILENCE_S", 0.2)
    passed, rows = told(Slow(0.4))
    assert not passed
    assert failed(rows) == {"a GPU starts, and its first picture comes", "more pictures than GPUs"}


@pytest.mark.slow
def test_pictures_that_are_made_for_nobody_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of clients that do not hang up."""
    monkeypatch.setattr(smoke, "HICCUP_S", 0.0)
    with ThreadPoolExecutor() as threads:

        def stay(self: Smoke, fields: dict[str, Any]) -> None:
            threads.submit(self._post, fields, {})

        monkeypatch.setattr(Smoke, "_hang_up", stay)
        _, rows = told(Slow(0.2))
    assert failed(rows) == {"hanging up"}


def test_a_redeploy_that_did_not_happen_fails() -> None:
    _, rows = told(Resizer(), redeploy_s=0.1)
    assert failed(rows) == {"a redeploy meanwhile"}


def test_a_front_that_is_slow_to_refuse_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke, "REFUSED_S", 0.0)
    _, rows = told(Resizer())
    assert failed(rows) == {"refusals and dry runs need no GPU", "more pictures than GPUs"}


class Wrong(Resizer):
    """A backend whose pictures have another size."""

    def upscale(
        self, pixels: Pixels, model: UpscalingModel, size: Size, progress: Progress
    ) -> Iterable[Pixels]:
        return [next(iter(super().upscale(pixels, model, size, progress)))[:-1]]


def test_what_is_no_picture_of_that_size_fails() -> None:
    passed, rows = told(Wrong())
    assert not passed
    assert rows["a warm picture"][0] == "**failed**"


def test_another_token_fails_all_that_needs_one() -> None:
    passed, rows = told(Resizer(), "another-token")
    assert not passed
    assert {name for name, (result, _) in rows.items() if result == "passed"} == {
        "the front starts"
    }
    assert rows["the largest answer"][1].startswith("401 in place of 200: ")


@pytest.mark.parametrize(
    ("argv", "said"), [(("example.com",), "is not a URL"), (("https://x",), "UPSCALER_TOKEN")]
)
def test_a_usage_error_says_what_is_wrong(
    argv: tuple[str, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("UPSCALER_TOKEN", raising=False)
    with pytest.raises(SystemExit) as exited:
        smoke.main(argv)
    assert exited.value.code == 2
    assert said in capsys.readouterr().err
