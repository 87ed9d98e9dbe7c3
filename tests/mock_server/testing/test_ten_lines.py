"""A small project with the plugins and the proxy that make a mock's life hard."""

from pathlib import Path
from textwrap import dedent
from typing import Final

import pytest

from tests.support.consumer_suites import outcome
from tests.support.service import png
from tests.support.suite_plugins import environment, needs_suite_plugins

CLIENT: Final = """
    import httpx

    async def enlarge(url, token, file):
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(headers=headers, timeout=60) as client:
            answer = await client.post(f"{url}/upscaling", json={"init_image": file, "scale": 0.5})
            return answer.raise_for_status().json()["image_b64"]
"""
TESTS: Final = """
    import pytest
    from enlarge import enlarge
    from freezegun import freeze_time

    pytestmark = [pytest.mark.asyncio]

    @pytest.mark.parametrize("day", range(1, 5))
    async def test_by_url(upscaling_mock, day):
        with freeze_time(f"2051-03-0{day}"):
            assert await enlarge(upscaling_mock.url, upscaling_mock.token, FILE)
        upscaling_mock.assert_called_with(scale=0.5, times=1)

    @freeze_time("1999-12-31")
    async def test_in_process(upscaling_api):
        assert await enlarge("https://image.octoai.run", "mock-token", FILE)
        upscaling_api.mock.assert_called_with(scale=0.5, times=1)
"""


@pytest.mark.slow
@needs_suite_plugins()
def test_the_project_passes_and_ends(tmp_path: Path) -> None:
    (tmp_path / "enlarge.py").write_text(dedent(CLIENT))
    (tmp_path / "test_enlarge.py").write_text(f'FILE = "{png(256, 256)}"\n' + dedent(TESTS))
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = strict\nasyncio_default_fixture_loop_scope = function\n"
        "pythonpath = .\n"
    )
    came = outcome(
        tmp_path,
        "-n2",
        **environment(),
        HTTP_PROXY="http://127.0.0.1:9",  # at a port that nobody listens on (discard)
        HTTPS_PROXY="http://127.0.0.1:9",
        NO_PROXY="localhost,127.0.0.1",
    )
    assert came.counts == {"passed": 5}, came.said
    assert "Using --randomly-seed=" in came.said
    assert "asyncio: mode=" in came.said
