"""The mock without a socket in a child that was forked from the process which used it first."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.paths import ROOT
from tests.support.raw_http import PATIENCE_S
from tests.support.service import png

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

PROGRAM: Final = f"""
import asyncio, os, sys, threading, httpx
import mock_server

URL = "https://image.octoai.run"
SMALL = {{"init_image": "{png(256, 256)}", "scale": 0.5}}
HEADERS = {{"Authorization": "Bearer mock-token"}}

def ask(**headers):
    return httpx.post(URL + "/upscaling", json=SMALL, headers=HEADERS | headers)

async def ask_async():
    async with httpx.AsyncClient() as client:
        return await client.post(URL + "/upscaling", json=SMALL, headers=HEADERS)

def fork(work):
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, work.__name__

with mock_server.routes() as api:
    job = ask(**{{"X-OctoAI-Async": "1"}}).json()
    httpx.get(job["poll_url"], headers=HEADERS)  # so that it is done
    slow = threading.Thread(target=ask, kwargs={{"X-Mock-Fault": "latency=1"}})
    slow.start()  # while this is under way
    api.mock.faults.set("503,ok")

    def in_a_child():
        "What was set before the fork holds, and what was sent is known."
        assert [ask().status_code for _ in range(2)] == [503, 200]
        assert asyncio.run(ask_async()).status_code == 200
        told = httpx.get(job["poll_url"], headers=HEADERS).json()
        assert httpx.get(told["response_url"], headers=HEADERS).status_code == 200
        assert [call.status for call in api.mock.calls][-3:] == [503, 200, 200]
        fork(in_a_child_of_the_child)

    def in_a_child_of_the_child():
        assert ask().status_code == 200

    fork(in_a_child)
    fork(in_a_child)
    slow.join()
    assert [ask().status_code for _ in range(2)] == [503, 200]
    api.mock.assert_called_with(times=4)
"""


def test_a_fork_of_a_process_that_has_used_the_mock_is_answered(tmp_path: Path) -> None:
    # With -W error the child of a process with threads would be refused from Python 3.12 on.
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
