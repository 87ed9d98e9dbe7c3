"""The API in a container on Modal: in a front, or beside a GPU."""

from collections.abc import Callable

import modal
from fastapi import FastAPI

from upscaler.modal.backend import Method
from upscaler.modal.jobs import ModalJobStore
from upscaler.service import logs
from upscaler.service.app import create_app
from upscaler.service.backend import Backend
from upscaler.settings import Settings


def api(
    backend: Backend,
    make: Method,
    states: modal.Dict,
    has_room: Callable[[], bool] = lambda: True,
) -> FastAPI:
    """The service on `backend`; asynchronous jobs are calls of `make`: see ModalJobStore."""
    settings = Settings.from_environment()
    logs.to_stderr(settings.tokens)
    # All containers must sign ids with the same key; a new first token invalidates all ids.
    jobs = ModalJobStore(make, states, settings.tokens[0].encode(), has_room=has_room)
    return create_app(backend, settings, jobs)
