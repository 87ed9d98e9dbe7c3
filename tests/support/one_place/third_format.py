"""With WebP as a third format and its writer: everything that names or takes a format has it."""

import base64
import io
import os
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from mock_server.rules import catalogue
from tests.support.one_place import fields, image_file, implementations, printed
from upscaler.api.sizes import Size
from upscaler.cli.options import parser
from upscaler.file_jobs import plan_files
from upscaler.formats import ImageEncoding
from upscaler.imaging.encode import encode, most_bytes
from upscaler.modal import backend as modal_backend
from upscaler.modal import cli as modal_cli
from upscaler.models import UpscalingModel
from upscaler.service.backend import UpscaleJob, UpscaleResult
from upscaler.settings import Settings

WEBP = ImageEncoding("webp")
TYPE = "image/webp"


def check_file(file: bytes, size: Size) -> None:
    assert file.startswith(b"RIFF"), file[:16]
    assert file[8:12] == b"WEBP", file[:16]
    with Image.open(io.BytesIO(file)) as image:
        assert (image.format, image.size) == ("WEBP", size)


def check_encoder() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 256, 4), np.uint8)
    file = encode(noise, WEBP)
    check_file(file, (256, 300))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(file))), noise)
    assert len(file) <= most_bytes((256, 300), 4)


def check_files() -> None:
    """The command line's and Modal's: which file goes where, in which encoding."""
    Path("photo.png").write_bytes(image_file())
    named = plan_files(["photo.png"], "larger.webp", None)
    assert (named.encoding, named.jobs[0].target) == (WEBP, Path("larger.webp"))
    for arguments in (
        parser().parse_args(["image", "photo.png", "--encoding", "webp"]),
        modal_cli.parser().parse_args(["--image", "photo.png", "--encoding", "webp"]),
    ):
        asked = plan_files(["photo.png"], None, arguments.encoding, before_after=True)
        assert asked.encoding is WEBP
        assert asked.jobs[0].target == Path("upscaled/photo.webp")
        assert asked.jobs[0].comparison == Path("upscaled/photo-before-after.webp")
    for text in (
        printed(parser().parse_args, "image", "--help"),
        printed(modal_cli.parser().parse_args, "--help"),
    ):
        assert "jpeg, png, webp" in text, text
    os.environ["UPSCALER_DEFAULT_ENCODING"] = "webp"
    assert Settings.from_environment().default_encoding is WEBP
    del os.environ["UPSCALER_DEFAULT_ENCODING"]


def check_payload() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    job = UpscaleJob(b"", pixels, UpscalingModel.X4_V3, (4, 4), WEBP, as_file=True)
    assert modal_backend.arguments(job)[3] == "webp"
    result = UpscaleResult([b"file"], WEBP, True, job.model, "0" * 64, (4, 4), (4, 4), {})
    returned = modal_backend.from_payload(modal_backend.to_payload(result, "L4"))
    assert replace(returned, held_bytes=0) == result


def check_upscaling(api: httpx.Client) -> None:
    wanted = fields(scale=2, output_image_encoding="webp")
    response = api.post("/upscaling", json=wanted)
    assert response.headers["Content-Type"] == "application/json"
    check_file(base64.b64decode(response.json()["image_b64"]), (512, 600))
    for accept in (TYPE, f"image/png;q=0.5, {TYPE}", "IMAGE/WEBP"):
        response = api.post("/upscaling", json=fields(scale=2), headers={"Accept": accept})
        assert response.headers["Content-Type"] == TYPE
        assert response.headers["X-Upscaler-Output-Size"] == "512x600"
        assert int(response.headers["Content-Length"]) == len(response.content)
        check_file(response.content, (512, 600))
    response = api.post("/upscaling", json=wanted, headers={"Accept": "image/*"})
    assert response.headers["Content-Type"] == TYPE
    refused = api.post("/upscaling", json=wanted, headers={"Accept": "image/gif"})
    assert refused.status_code == 406
    assert TYPE in refused.text
    invalid = api.post("/upscaling", json=fields(output_image_encoding="gif"))
    assert invalid.status_code == 422
    assert "'webp'" in invalid.text


def check_asynchronous(api: httpx.Client) -> None:
    headers = {"X-OctoAI-Async": "1", "Accept": TYPE}
    started = api.post("/upscaling", json=fields(scale=2), headers=headers).json()
    polled: dict[str, str] = {}
    while polled.get("status") != "completed":
        polled = api.get(started["poll_url"]).json()
    response = api.get(polled["response_url"])
    assert response.headers["Content-Type"] == TYPE
    check_file(response.content, (512, 600))


def check_descriptions(api: httpx.Client) -> None:
    document = api.get("/openapi.json").json()
    assert document["components"]["schemas"]["ImageEncoding"]["enum"] == ["jpeg", "png", "webp"]
    upscaling = document["paths"]["/upscaling"]["post"]
    assert TYPE in upscaling["responses"]["200"]["content"]
    (accept,) = [each for each in upscaling["parameters"] if each["name"] == "Accept"]
    assert TYPE in accept["description"]
    entry = {"name": "webp", "media_type": TYPE, "suffix": ".webp", "description": "Small."}
    assert api.get("/page/config.json").json()["encodings"][-1] == entry


def check_mock(api: httpx.Client) -> None:
    """Its fault answers with another encoding than the one that was asked for."""
    wanted = fields(output_image_encoding="webp")
    response = api.post("/upscaling", json=wanted, headers={"X-Mock-Fault": "wrong-encoding"})
    assert base64.b64decode(response.json()["image_b64"]).startswith(b"\xff\xd8\xff")
    for rule in ("REQ-9", "RES-8"):
        assert "webp" in catalogue.RULES[catalogue.ORDER[rule]].text
    assert "WEBP" in catalogue.RULES[catalogue.ORDER["RES-2"]].text


if __name__ == "__main__":
    check_encoder()
    check_files()
    check_payload()
    with implementations() as apis:
        for implementation in apis.values():
            check_upscaling(implementation)
            check_asynchronous(implementation)
            check_descriptions(implementation)
        check_mock(apis["mock"])
