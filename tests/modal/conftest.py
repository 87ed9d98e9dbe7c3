"""The app on a control plane of this machine, for tests that call its containers."""

from collections.abc import Iterator

import pytest

from tests.support.modal_control_plane import Plane, app_deployed, make
from upscaler.modal import bucket


@pytest.fixture(scope="module")
def plane_of_module() -> Iterator[Plane]:
    with app_deployed() as plane:
        yield plane


@pytest.fixture
def plane(plane_of_module: Plane) -> Iterator[Plane]:
    """The same with containers that do well, where nothing was asked yet."""
    plane_of_module.work["make"] = make
    plane_of_module.received.clear()
    yield plane_of_module
    plane_of_module.failing.clear()
    plane_of_module.writing, plane_of_module.lost_blobs = True, False


@pytest.fixture
def silent_of_signatures(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Whatever is logged in a test, no URL with a signature is. Uploads are tried again at once."""
    monkeypatch.setattr(bucket, "PAUSE_S", 0.0)
    with caplog.at_level("INFO"):
        yield
    assert "X-Amz-Signature" not in caplog.text
