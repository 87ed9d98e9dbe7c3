"""With a seventh model in the mock, the oracle, or both: what the contract tests say of it.

python -m tests.support.one_place.seventh_in_the_contract {both,mock,oracle}
"""

import json
import sys

import pytest
from hypothesis import given, settings

from contract_tests.failures import Failure
from contract_tests.judge.expectations import Policy
from contract_tests.judge.run import Run
from contract_tests.oracle.oracle import Level
from contract_tests.oracle.rules import RULES
from contract_tests.oracle.values import MODELS
from contract_tests.requests.request import Request, upscaling_request
from contract_tests.requests.strategies import valid_requests
from contract_tests.suite import test_images as suite
from contract_tests.target.budget import Budget
from contract_tests.target.client import Target
from mock_server import MockServer

NAME = "real-esrgan-seventh"
TOKEN = "a-token"


def accepted(run: Run, mock: MockServer) -> None:
    """It is drawn, upscaled and found right."""
    assert NAME in MODELS
    assert "7 names" in RULES["REQ-8"].sentence
    suite.test_each_model_upscales(run, NAME)

    @settings(max_examples=200, derandomize=True, database=None, deadline=None)
    @given(request=valid_requests)
    def send_if_drawn(request: Request) -> None:
        if json.loads(request.body).get("model") == NAME:
            run.check(request)

    send_if_drawn()
    assert len(mock.calls) > 5
    assert {call.status for call in mock.calls} == {200}


def reported_in_the_mock(run: Run) -> None:
    """The mock makes an image by a model that no source has."""
    with pytest.raises(Failure) as raised:
        run.check(upscaling_request({"model": NAME, "scale": 2}, suite.image(14)))
    assert raised.value.rule == "REQ-8", raised.value


def reported_as_missing(run: Run) -> None:
    """The mock refuses a model that it should have."""
    with pytest.raises(Failure) as raised:
        suite.test_each_model_upscales(run, NAME)
    assert raised.value.rule == "REQ-8", raised.value


def main(place: str) -> None:
    with MockServer(tokens=[TOKEN]) as mock:
        target = Target(mock.url, TOKEN)
        run = Run(target, Policy(Level.STRICT), Budget())
        if place == "both":
            accepted(run, mock)
        elif place == "mock":
            reported_in_the_mock(run)
        else:
            reported_as_missing(run)
        target.close()


if __name__ == "__main__":
    main(sys.argv[1])
