"""With an output limit of 10,000 pixels: everything that names the limit has the new one."""

import json
from collections.abc import Callable, Iterator

import httpx
import pytest

from contract_tests import cli as contract_cli
from contract_tests.judge.expectations import Policy
from contract_tests.judge.run import Run
from contract_tests.oracle.oracle import Level
from contract_tests.oracle.rules import RULES
from contract_tests.suite import test_images, test_refusals
from contract_tests.target.budget import Budget
from contract_tests.target.client import Target
from mock_server import MockServer
from mock_server.serving import cli as mock_cli
from tests.support.one_place import fields, implementations, printed
from upscaler.cli.main import main
from upscaler.errors import InvalidSetting
from upscaler.modal import cli as modal_cli
from upscaler.settings import Settings

OLD, NEW = "8192", "10000"
TOKEN = "a-token"
PAGES = ("/", "/page/page.js", "/page/config.json", "/docs", "/docs/start.js", "/openapi.json")
REFUSED: tuple[dict[str, object], ...] = (
    {"output_image_height": 10_001},
    {"output_image_width": 10_001},
    {"scale": 40},
    {"scale": 0},
    {"scale": 1, "model": "no", "output_image_encoding": "no", "surplus": 1},
)


def help_texts() -> Iterator[str]:
    for command in ("image", "serve", "weights"):
        yield printed(main, command, "--help")
    yield printed(modal_cli.parser().parse_args, "--help")
    yield printed(mock_cli.main, "--help")
    yield printed(mock_cli.main, "--rules")
    yield printed(mock_cli.main, "--rules", "json")
    yield printed(contract_cli.main, "--help")


def responses(api: httpx.Client) -> Iterator[httpx.Response]:
    yield from map(api.get, PAGES)
    for refused in REFUSED:
        response = api.post("/upscaling", json=fields(**refused))
        assert response.status_code == 422, response.text
        yield response
    for accept in ("image/gif", "application/json"):
        for size in (300, 100, 3000):
            headers = {"Accept": accept, "X-Upscaler-Dry-Run": "1"}
            yield api.post("/upscaling", json=fields((size, 300)), headers=headers)


def check_texts() -> None:
    texts = list(help_texts())
    for text in texts:
        assert text
        assert OLD not in text, text
    modal = texts[3]
    assert f"to at most {NEW}." in modal, modal
    assert f"the output have at most {NEW} pixels" in texts[5], texts[5]
    assert f"at most {NEW} pixels" in RULES["REQ-14"].sentence
    with pytest.raises(InvalidSetting, match="445M at least"):
        Settings.from_environment({"UPSCALER_QUEUE_MEMORY": "1M"})


def check_implementations() -> None:
    with implementations() as apis:
        for api in apis.values():
            for response in responses(api):
                told = response.text + repr(response.headers)
                assert OLD not in told, f"{response.url}: {told}"
            assert api.get("/page/config.json").json()["max_output_px"] == 10_000
            dry = {"X-Upscaler-Dry-Run": "1"}
            largest = fields(output_image_height=10_000)
            plan = api.post("/upscaling", json=largest, headers=dry)
            assert plan.json()["output_height"] == 10_000
            refused = api.post("/upscaling", json=fields(output_image_height=10_001))
            assert f"at most {NEW} pixels on each side" in refused.text
            assert f"ask for at most {NEW}" in refused.text


def check_contract() -> None:
    """The suite's requests at the limit get their image, and those beyond it are refused."""
    with MockServer(tokens=[TOKEN]) as mock:
        target = Target(mock.url, TOKEN)
        run = Run(target, Policy(Level.STRICT), Budget())
        (at_limit,) = cases(test_images.test_an_output_at_the_limit_is_made)
        (beyond,) = cases(test_refusals.test_an_output_a_little_beyond_the_limit_is_refused)
        for given, size in beyond:
            test_refusals.test_an_output_a_little_beyond_the_limit_is_refused(run, given, size)
        assert {call.status for call in mock.calls} == {422}
        assert len(mock.calls) == len(beyond)
        test_images.test_an_output_at_the_limit_is_made(run, *at_limit[-1])
        assert mock.calls[-1].status == 200
        longest = [max(size_of(run, *case)) for case in at_limit]
        assert longest == [9_999, 9_999, *[10_000] * 5]
        target.close()


def cases(test: Callable[..., object]) -> Iterator[list[tuple[dict[str, float], tuple[int, int]]]]:
    """The parameters of a test."""
    for mark in getattr(test, "pytestmark", ()):
        if mark.name == "parametrize":
            yield mark.args[1]


def size_of(run: Run, given: dict[str, float], size: tuple[int, int]) -> tuple[int, int]:
    """The output of a case, as a dry run has it."""
    headers = {"Authorization": f"Bearer {TOKEN}", "X-Upscaler-Dry-Run": "1"}
    url = f"{run.target.base_url}/upscaling"
    plan = httpx.post(url, json=fields(size, **given), headers=headers).json()
    assert isinstance(plan, dict), json.dumps(plan)
    return plan["output_width"], plan["output_height"]


if __name__ == "__main__":
    check_texts()
    check_implementations()
    check_contract()
