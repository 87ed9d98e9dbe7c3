"""Uploads and downloads of results, and what becomes of them if the store does not do its part."""

import asyncio
import threading
from urllib.parse import urlsplit

import pytest

from tests.support.modal_calls import TASK
from tests.support.raw_http import PATIENCE_S
from tests.support.s3 import bucket_at
from tests.support.service import Resizer
from tests.support.stub_servers import ReceivedRequest, Reply, StubServer, in_turn, stub_server
from upscaler.errors import NotStored, UnknownJob, Unreachable
from upscaler.modal import bucket as module
from upscaler.service.backend import StageTimer, run_job

pytestmark = pytest.mark.usefixtures("silent_of_signatures")

OK: Reply = (200, {}, b"")
BUSY: Reply = (503, {}, b"<Error><Code>SlowDown</Code></Error>")
REFUSED: Reply = (403, {}, b"<Error><Code>AccessDenied</Code></Error>")
RESULT = run_job(Resizer(), TASK, "0" * 64, StageTimer())


@pytest.mark.parametrize(
    ("replies", "uploads", "told"),
    [
        ([BUSY, None, OK], 3, ""),
        ([BUSY], 3, "503 SlowDown (its store may be away"),
        ([REFUSED], 1, "403 AccessDenied (the key in the secret upscaler-bucket must be valid"),
        ([(301, {"Location": "/"}, b"")], 1, "301 Moved Permanently (AWS_REGION and AWS_ENDPOINT"),
    ],
)
def test_an_upload_is_tried_again_unless_it_is_refused(
    replies: list[Reply], uploads: int, told: str
) -> None:
    with stub_server(in_turn(*replies)) as stub:
        upload = bucket_at(stub.url).upload(required=True)
        if told:
            with pytest.raises(NotStored) as refused:
                asyncio.run(module.put(RESULT, upload))
            assert told in str(refused.value)
            assert "X-Amz" not in str(refused.value)
        else:
            assert asyncio.run(module.put(RESULT, upload))
        assert len(stub.seen) == uploads
        assert stub.seen[-1].body == b"".join(RESULT.file)
        assert stub.seen[-1].header("content-type") == "image/jpeg"
        paths = {urlsplit(seen.path).path for seen in stub.seen}
        assert len(paths) == 1


def test_an_upload_that_takes_too_long_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "TRANSFER_S", 0.3)
    over = threading.Event()

    def reply(_: ReceivedRequest) -> Reply:
        over.wait(PATIENCE_S)
        return OK

    with stub_server(reply) as stub:
        bucket = bucket_at(stub.url)
        with pytest.raises(NotStored, match=r"not within 0\.3 s"):
            asyncio.run(module.put(RESULT, bucket.upload(required=True)))
        assert asyncio.run(module.put(RESULT, bucket.upload(required=False))) is None
        assert "which goes by way of Modal: 127.0.0.1" in caplog.text
        over.set()


def read(stub: StubServer, size_bytes: int = 9, *, kept: bool = False) -> bytes:
    async def whole() -> bytes:
        found = module.pieces({"get_url": f"{stub.url}/x", "size_bytes": size_bytes}, kept=kept)
        return b"".join([piece async for piece in found])

    return asyncio.run(whole())


@pytest.mark.parametrize(
    "reply",
    [
        BUSY,
        REFUSED,
        (200, {}, b"longer"),
        (200, {"Content-Length": "9", "Connection": "close"}, b"cut"),
        (302, {}, b""),
    ],
)
def test_a_fault_of_the_bucket_passes(reply: Reply) -> None:
    with stub_server(in_turn(reply, (200, {}, b"the whole"))) as stub:
        with pytest.raises(Unreachable):
            read(stub)
        assert read(stub) == b"the whole"


def test_an_object_that_is_gone_is_unknown_if_it_was_kept_for_its_client() -> None:
    with stub_server(in_turn((404, {}, b""))) as stub:
        with pytest.raises(UnknownJob):
            read(stub, kept=True)
        with pytest.raises(Unreachable):
            read(stub)
