"""The API in a container on Modal: in a front, or beside a GPU."""

from collections.abc import Callable

from fastapi import FastAPI

from upscaler.errors import InvalidSetting
from upscaler.modal.backend import Method
from upscaler.modal.bucket import Bucket
from upscaler.modal.jobs import ModalJobStore
from upscaler.modal.states import States
from upscaler.service import logs
from upscaler.service.app import create_app
from upscaler.service.backend import Backend
from upscaler.settings import Settings


def api(
    backend: Backend,
    make: Method,
    states: States,
    bucket: Bucket | None = None,
    has_room: Callable[[], bool] = lambda: True,
) -> FastAPI:
    """The service on `backend`; asynchronous jobs are calls of `make`: see ModalJobStore.

    Raises InvalidSetting, also for a secret without any token, which `modal deploy` cannot see.
    """
    settings = Settings.from_environment()
    if not settings.tokens:
        raise InvalidSetting(
            "UPSCALER_TOKEN: there is no token in the secret: create it again with --force, and "
            "then run: modal app rollover octo-upscaler --strategy recreate"
        )
    logs.to_stderr(settings.tokens)
    # All containers must sign ids with the same key; a new first token invalidates all ids.
    jobs = ModalJobStore(make, states, settings.tokens[0].encode(), bucket, has_room=has_room)
    return create_app(backend, settings, jobs)
