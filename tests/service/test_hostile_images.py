"""Files that mean harm are refused, or give the right picture, in little time and memory."""

from collections.abc import Iterator
from threading import Thread

import pytest

from tests.support.hostile_images import CASES
from tests.support.image_cases import SECONDS, SMALL, Case, check, send, warmed
from tests.support.image_files import Samples, decode, saved
from tests.support.processes import Child, child, needs_proc
from upscaler.imaging import decode as images

pytestmark = pytest.mark.dev


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with child(tmp_path_factory.mktemp("server")) as found:
        yield found
        said = found.said.read_text()
    assert "Traceback" not in said, said


@pytest.fixture(scope="module")
def resting(server: Child) -> int:
    return warmed(server)


@pytest.mark.every(4)
@needs_proc
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_file_is_refused_or_right(case: Case, server: Child, resting: int) -> None:
    sent = send(case, server, resting)
    check(case, sent)
    assert sent.seconds < SECONDS
    assert sent.memory < case.memory


def test_two_webps_are_never_decoded_at_once() -> None:
    """So that the memory which libwebp may take is not taken twice."""
    pixels: dict[str, Samples] = {}

    def read(kind: str) -> None:
        pixels[kind] = decode(saved(SMALL, kind))

    threads = [Thread(target=read, args=(kind,)) for kind in ("WEBP", "PNG")]
    with images._WEBP:
        for thread in threads:
            thread.start()
        threads[1].join()
        threads[0].join(0.2)
        assert list(pixels) == ["PNG"]
    threads[0].join()
    assert pixels["WEBP"].shape == SMALL.shape
