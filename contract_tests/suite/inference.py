"""The steps of an asynchronous inference, each of which requires what its rule says."""

import time
from typing import Final

from contract_tests.judge.checks import read_json_object
from contract_tests.judge.run import Run
from contract_tests.requests.request import ASYNC_HEADER, AUTHORIZATION, Request
from contract_tests.target.client import is_url
from contract_tests.target.response import Response

FIRST_PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 5.0
STATUSES: Final = ("pending", "running", "completed")


def get(run: Run, path: str, *headers: tuple[str, str]) -> Response | None:
    """The response to a GET with the token and these headers."""
    return run.send(Request(method="GET", path=path, headers=(AUTHORIZATION, *headers)))


def start_inference(run: Run, request: Request) -> dict[str, str]:
    """The ids and absolute URLs in the response to an asynchronous request (ASY-1)."""
    response = run.check(request.with_headers(ASYNC_HEADER))
    if response is None:
        return {}
    fields = read_json_object(response, "ASY-1", run.policy)
    url = fields.get("poll_url")
    run.require_or_stop(is_url(url), "ASY-1", f"poll_url is not an absolute URL: {url}")
    return fields


def wait_for_result(run: Run, accepted: dict[str, str]) -> str:
    """Poll until the inference has completed, and return the response_url (ASY-2)."""
    began_s, pause_s, reached = time.monotonic(), FIRST_PAUSE_S, 0
    while time.monotonic() - began_s < run.target.options.timeout_s:
        response = get(run, accepted["poll_url"])
        assert response is not None, "a plan starts no inference"
        run.require_or_stop(
            response.status in (200, 202), "ASY-2", f"the poll_url returned {response.summary}"
        )
        fields = read_json_object(response, "ASY-2", run.policy)
        status, url = fields.get("status"), fields.get("response_url")
        # No source says that an inference cannot wait again, as after a container has stopped.
        possible = STATUSES[reached:] if run.policy.strict else STATUSES
        sentence = f"the status is {status} after {STATUSES[reached]}"
        run.require_or_stop(status in possible, "ASY-2", sentence)
        reached = STATUSES.index(str(status))
        if status == STATUSES[-1]:
            run.require_or_stop(is_url(url), "ASY-2", f"response_url is {url}, not an absolute URL")
            return str(url)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
    timeout_s = run.target.options.timeout_s
    run.require_or_stop(False, "ASY-2", f"the inference was not completed in {timeout_s:g} s")
    raise AssertionError("require_or_stop has raised")


def check_result(
    run: Run, request: Request, url: str, *headers: tuple[str, str], rule: str = "ASY-3"
) -> None:
    """The result is what the synchronous request would have returned, whatever the headers."""
    response = get(run, url, *headers)
    assert response is not None, "a plan starts no inference"
    run.check_response_to(request, response, rule)
