"""`face_enhance` between the service and a container on Modal."""

from dataclasses import replace
from typing import Any

from tests.modal.test_backend import made_remotely
from tests.support.modal_calls import TASK, sent
from tests.support.modal_control_plane import Plane, make
from upscaler.modal.backend import ModalBackend, arguments
from upscaler.modal.payload import ResultPayload, Upload

WITH = replace(TASK, face_enhance=True)


def test_a_container_is_told_only_if_faces_are_wanted() -> None:
    """An older one takes no such argument."""
    upload: Upload = {"put_url": "p", "get_url": "g", "required": True}
    assert arguments(TASK) == sent(TASK)
    assert arguments(WITH) == (*sent(TASK), None, True)
    assert arguments(WITH, upload) == (*sent(TASK), upload, True)
    assert ModalBackend.face_enhance


def test_the_service_gets_how_many_a_container_restored(plane: Plane) -> None:
    more: list[tuple[Any, ...]] = []

    def restoring(*task: Any) -> ResultPayload:
        more.append(task[5:])
        return {**make(*task[:5]), "faces": 3}

    plane.work["make"] = restoring
    assert made_remotely(WITH).faces == 3
    assert more == [(None, True)]


def test_an_older_container_says_nothing_of_faces(plane: Plane) -> None:
    assert made_remotely().faces is None
