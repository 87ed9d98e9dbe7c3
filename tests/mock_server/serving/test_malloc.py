"""The mock's process keeps freed memory."""

import ctypes
import platform
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import httpx
import pytest

from mock_server.serving import malloc
from tests.support.mock_servers import mock_child
from tests.support.processes import Child, needs_proc
from tests.support.service import png

AGAIN: Final = 300
"""How many new pages an image may take. It is 4000 if all freed memory is returned."""


def pages(child: Child) -> int:
    """Return how many pages the process got so far (proc(5), stat, minflt)."""
    _, _, fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(") ")
    return int(fields.split()[7])


@needs_proc
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc has other options")
def test_images_reuse_freed_memory(tmp_path: Path) -> None:
    fields = {"init_image": png(1024, 1024), "scale": 2}
    headers = {"Authorization": "Bearer mock-token"}
    with mock_child(tmp_path) as child, httpx.Client(base_url=child.url, headers=headers) as api:

        def make(pictures: int) -> None:
            for _ in range(pictures):
                assert api.post("/upscaling", json=fields, timeout=60).status_code == 200

        make(6)
        before = pages(child)
        make(4)
        assert pages(child) - before < 4 * AGAIN


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_without_glibc_nothing_happens(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_name: None) -> SimpleNamespace:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", missing)
    malloc.keep_freed_memory()
