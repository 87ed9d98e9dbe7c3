"""Receives webhooks on this machine, and says whether they are signed right."""

import base64
import hmac
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from contract_tests.failures import NotOffered
from contract_tests.judge.run import Run

PREFIX: Final = "whsec_"
KEY_BYTES: Final = range(24, 65)
"""How long a secret may be (Standard Webhooks 1.0.0, on symmetric signatures)."""
MAX_BODY_BYTES: Final = 2**20
TOLERANCE_S: Final = 300.0
"""By how much the time of a message may differ from ours, as in the libraries of the standard."""
BUSY: Final = 503
RECEIVED: Final = 204
LONGEST_WAIT_S: Final = 60.0
PAUSE_S: Final = 0.02


@dataclass(frozen=True)
class Message:
    """A POST as it came; names of headers are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> dict[str, Any]:
        """The JSON object in it, or an empty one."""
        try:
            parsed = json.loads(self.body)
        except ValueError:
            return {}
        return parsed if isinstance(parsed, dict) else {}


class Receiver:
    """What has come to `origin`."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.messages: list[Message] = []

    def wait_for(self, run: Run, path: str, count: int) -> list[Message]:
        """The messages to a path, once there are so many, or after a while.

        There may be more, as each is sent at least once.
        """
        wait_s = min(LONGEST_WAIT_S, run.target.options.timeout_s)
        until_s = time.monotonic() + wait_s
        while True:
            found = [message for message in self.messages if message.path == path]
            if len(found) >= count or time.monotonic() > until_s:
                return found
            time.sleep(PAUSE_S)


@contextmanager
def receiver(run: Run, busy_at: str = "") -> Iterator[Receiver]:
    """Receive POSTs, and respond with RECEIVED, but with BUSY to the first one at a path.

    Raises NotOffered if the target is on another machine, from where this one may not be reached.
    """
    if not is_loopback(run.target.base_url):
        raise NotOffered("webhooks are received here from a target on this machine alone")
    busy = {busy_at}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            size = int(length) if length.isdecimal() else 0
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(min(size, MAX_BODY_BYTES))
            status = BUSY if self.path in busy else RECEIVED
            busy.discard(self.path)
            received.messages.append(Message(self.path, headers, body))
            self.send_response_only(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        received = Receiver(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield received
        finally:
            server.shutdown()
            thread.join()


def is_loopback(url: str) -> bool:
    """Whether a URL is of this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def key_of(secret: object) -> bytes | None:
    """The key in a secret, or None if it is not of the standard's form."""
    if not isinstance(secret, str) or not secret.startswith(PREFIX):
        return None
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except ValueError:
        return None
    return key if len(key) in KEY_BYTES else None


def fault_of(message: Message, key: bytes) -> str:
    """What is wrong with a message as Standard Webhooks 1.0.0 has it, or an empty string."""
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    message_id, second, signatures = (message.headers.get(name, "") for name in names)
    if not (message_id and second and signatures):
        return f"it lacks one of the headers {', '.join(names)}"
    if not (second.isascii() and second.isdecimal()):
        return f"webhook-timestamp is {second[:40]}, not a number of seconds"
    if abs(int(second[:18]) - time.time()) > TOLERANCE_S:
        return f"webhook-timestamp is {second[:40]}, which is not now"
    signed = f"{message_id}.{second}.".encode() + message.body
    right = f"v1,{base64.b64encode(hmac.digest(key, signed, 'sha256')).decode()}"
    if not any(hmac.compare_digest(right.encode(), each.encode()) for each in signatures.split()):
        return "webhook-signature is not that of its id, time and body by the secret"
    return "" if message.told else "its body is no JSON object"
