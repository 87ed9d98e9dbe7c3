"""Files that mean harm are refused, or give the right picture, in little time and memory."""

from collections.abc import Iterator
from threading import Thread

import pytest
from PIL import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from tests.children import Child, child, needs_proc
from tests.hostile_pictures import CASES
from tests.picture_cases import SECONDS, SMALL, Case, check, send, warmed
from tests.picture_files import Samples, decode, noise, saved
from upscaler import images


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    with child(tmp_path_factory.mktemp("server")) as found:
        yield found
        said = found.said.read_text()
    assert "Traceback" not in said, said


@pytest.fixture(scope="module")
def resting(server: Child) -> int:
    return warmed(server)


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


def test_a_jpeg_is_given_to_the_decoder_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """In many pieces, what is left of each is copied with the next: ten seconds for fill bytes."""
    read: list[int] = []
    load_read = JpegImageFile.load_read

    def noted(image: JpegImageFile, length: int) -> bytes:
        data = load_read(image, length)
        read.append(len(data))
        return data

    monkeypatch.setattr(JpegImageFile, "load_read", noted)
    data = saved(noise(300, 300, 3), "JPEG")
    decode(data)
    assert len(data) > ImageFile.MAXBLOCK
    assert len(read) == 2  # to see its pixels, and whether they are all
