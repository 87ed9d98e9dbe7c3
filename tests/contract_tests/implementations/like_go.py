"""The API with the habits of Go's net/http: errors are lines of text, and JSON is read as a stream.

It is written with what Python's standard library has, and with nothing of a framework.
"""

import base64
import binascii
import json
import re
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from PIL import ImageOps

from tests.contract_tests.implementations.pixels import NoImage, read, resized

MISTAKES = {
    "no-healthcheck": ("RES-9", "Has no health check."),
    "output-of-8200": ("REQ-14", "Makes outputs of more than 8192 pixels."),
    "always-jpeg": ("REQ-9", "Makes a JPEG, whichever encoding is requested."),
    "mirrored": ("RES-2", "Mirrors the image."),
    "async-checked-later": ("ASY-1", "Checks an asynchronous request after it has accepted it."),
    "latest-result": ("ASY-3", "Returns the latest result, whichever is asked for."),
}
"""What can be wrong with it by intention: the rule that it breaks, and how."""
MODELS: Final = (
    *("real-esrgan-x4-plus", "real-esrgan-x4-v3", "real-esrgan-x4-v3-wdn"),
    *("real-esrgan-animevideo-v3", "real-esrgan-x4-plus-anime", "real-esrgan-x2-plus"),
)
TYPES: Final[dict[str, tuple[type, ...]]] = {
    "init_image": (str,),
    "init_image_url": (str,),
    "scale": (int, float),
    "output_image_height": (int,),
    "output_image_width": (int,),
    "model": (str,),
    "output_image_encoding": (str,),
    "face_enhance": (bool,),
}
NULLABLE: Final = tuple(TYPES)[:5]
MIB: Final = 2**20


class Refused(Exception):
    """What `http.Error` would be called with."""

    def __init__(self, status: int, text: str, fields: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.status, self.text, self.fields = status, text, fields


def decoded(body: bytes) -> dict[str, Any]:
    """The first value in the body, like `json.NewDecoder(r.Body).Decode(&request)`."""
    try:
        text = body.decode().lstrip()
        fields, _ = json.JSONDecoder(parse_constant=_invalid).raw_decode(text)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "json: cannot decode the request") from error
    if not isinstance(fields, dict):
        raise Refused(400, "json: cannot unmarshal into Go value of type Request")
    wrong = tuple(name for name, value in fields.items() if not _has_type(name, value))
    if wrong:
        raise Refused(422, "", wrong)
    return {name: value for name, value in fields.items() if value is not None}


def _invalid(name: str) -> None:
    raise ValueError(name)


def _has_type(name: str, value: object) -> bool:
    if value is None:
        return name in NULLABLE
    if name not in TYPES or isinstance(value, bool) != (bool in TYPES[name]):
        return False
    whole = int in TYPES[name] and isinstance(value, float) and value.is_integer()
    named = {"model": MODELS, "output_image_encoding": ("png", "jpeg")}.get(name, (value,))
    return (whole or isinstance(value, TYPES[name])) and value in named


class Server(ThreadingHTTPServer):
    """A server on a free port; `mistake` is one of MISTAKES, or none."""

    daemon_threads = True

    def __init__(self, token: str, mistake: str = "") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.token, self.mistake = token, mistake
        self.jobs: list[Future[dict[str, object]]] = []
        self.pool = ThreadPoolExecutor(1)
        self.lock = threading.Lock()

    def check(self, body: bytes) -> tuple[Any, tuple[int, int], str]:
        """The image, the size of the output, and its encoding; raises Refused."""
        fields = decoded(body)
        sizes = [name for name in tuple(TYPES)[2:5] if name in fields]
        if len(sizes) != 1 or ("init_image" in fields) == ("init_image_url" in fields):
            raise Refused(400, "exactly one image and one size")
        if fields.get("face_enhance"):
            raise Refused(400, "face_enhance: not implemented")
        if "init_image_url" in fields:
            raise Refused(400, "no such host")
        try:
            image = read(base64.b64decode(fields["init_image"], validate=True))
        except (NoImage, binascii.Error, ValueError) as error:
            raise Refused(406, "image: unknown format") from error
        if not (min(image.size) >= 256 and max(image.size) <= 2048):
            raise Refused(413, "image: out of bounds")
        (name,) = sizes
        wanted, (width, height) = fields[name], image.size
        if wanted <= 0 or wanted > 10**5:
            raise Refused(400, f"{name}: out of range")
        ratio = wanted if name == "scale" else wanted / (height if "height" in name else width)
        if ratio < 1:
            raise Refused(400, f"{name}: the image would shrink")
        # Go's int(x) cuts off.
        size = [int(width * ratio), int(height * ratio)]
        if name != "scale":
            size["height" in name] = int(wanted)
        if max(size) > (8200 if self.mistake == "output-of-8200" else 8192):
            raise Refused(413, "output: too large")
        return image, (size[0], size[1]), fields.get("output_image_encoding", "png")

    def check_and_upscale(self, body: bytes) -> dict[str, object]:
        return self.upscale(*self.check(body))

    def upscale(self, image: Any, size: tuple[int, int], encoding: str) -> dict[str, object]:
        if self.mistake == "mirrored":
            image = ImageOps.mirror(image)
        encoding = "jpeg" if self.mistake == "always-jpeg" else encoding
        text = base64.b64encode(resized(image, *size, encoding)).decode()
        return {"image_b64": text, "removed_for_safety": False, "duration_ns": 1, "gpu": None}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while length := int(self.rfile.readline(), 16):
                body += self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer(body)

    def _answer(self, body: bytes) -> None:
        try:
            status, told = self._route(body)
            self._send(status, "application/json", json.dumps(told).encode() + b"\n")
        except Refused as refused:
            if refused.fields:
                detail = [{"loc": [n], "msg": "", "type": "unmarshal"} for n in refused.fields]
                told = {"detail": detail, "title": "Unprocessable Entity", "status": 422}
                self._send(422, "application/json", json.dumps(told).encode() + b"\n")
            else:
                self._send(
                    refused.status, "text/plain; charset=utf-8", f"{refused.text}\n".encode()
                )

    def _route(self, body: bytes) -> tuple[int, dict[str, object]]:
        server = self.server
        path = self.path.partition("?")[0]
        if path == "/healthcheck" and server.mistake != "no-healthcheck":
            return 200, {}
        known = path == "/upscaling" or re.fullmatch("/(status|result)/[0-9]+", path)
        if not known:
            raise Refused(404, "404 page not found")
        if (self.command == "POST") != (path == "/upscaling"):
            raise Refused(405, "Method Not Allowed")
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        if (scheme.lower(), given) != ("bearer", server.token):
            raise Refused(400, "Unauthorized")
        if path == "/upscaling":
            return self._upscale(body)
        number = int(path.rpartition("/")[2])
        job = server.jobs[-1 if server.mistake == "latest-result" else number]
        if path.startswith("/result/"):
            return 200, job.result()
        if not job.done():
            return 202, {"status": "pending", "position": 0}
        return 200, {"status": "completed", "response_url": f"{self._public()}/result/{number}"}

    def _upscale(self, body: bytes) -> tuple[int, dict[str, object]]:
        server = self.server
        if self.headers.get("X-OctoAI-Async") != "1":
            return 200, server.upscale(*server.check(body))
        if len(body) > 10 * MIB:
            raise Refused(413, "http: request body too large")
        if server.mistake == "async-checked-later":
            upscale = partial(server.check_and_upscale, body)
        else:
            upscale = partial(server.upscale, *server.check(body))
        with server.lock:
            server.jobs.append(server.pool.submit(upscale))
            number = len(server.jobs) - 1
        return 201, {"response_id": str(number), "poll_url": f"{self._public()}/status/{number}"}

    def _public(self) -> str:
        told = self.headers
        scheme, prefix = told.get("X-Forwarded-Proto", "http"), told.get("X-Forwarded-Prefix", "")
        return f"{scheme}://{told['Host']}{prefix}"

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name
        """Say nothing."""
