"""The mock's app: the service's own, so that each rule is the same, over a mock of the networks."""

from fastapi import FastAPI

from mock_server.enlarger import MockEnlarger
from upscaler import app
from upscaler.orders import InProcess
from upscaler.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """The mock, for the bearer tokens in `settings`; raises ValueError without any."""
    return app.create_app(InProcess(MockEnlarger()), settings)
