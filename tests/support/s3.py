"""A bucket in a server that speaks S3's protocol: s3rver, from npm, in a process of its own.

As S3, it refuses signed URLs that have expired, unknown keys, and a second means of authentication.
It does not compare signatures.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.support.clients.packages import NODE
from upscaler.modal.bucket import Bucket

BUCKET: Final = "results"
KEYS: Final = {"AWS_ACCESS_KEY_ID": "S3RVER", "AWS_SECRET_ACCESS_KEY": "S3RVER"}
"""The only ones that it knows."""


@dataclass(frozen=True)
class S3:
    """A server at `url` with a bucket; its objects are files below `folder`."""

    url: str
    folder: Path

    @property
    def objects(self) -> list[Path]:
        """What was uploaded, by time."""
        found = (self.folder / BUCKET).rglob("*._S3rver_object")
        return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def bucket_at(url: str, name: str = BUCKET, **keys: str) -> Bucket:
    """The bucket of that name in a store, as a front has it."""
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in {**KEYS, **keys, "AWS_ENDPOINT_URL": url}.items():
            patch.setenv(variable, value)
        return Bucket(name)


@contextmanager
def s3_server(folder: Path) -> Iterator[S3]:
    """The server until the end of the block."""
    script = NODE / "node_modules" / "s3rver" / "bin" / "s3rver.js"
    options = ("--address", "127.0.0.1", "--port", "0", "--configure-bucket", BUCKET, "--silent")
    with subprocess.Popen(
        ["node", script, "--directory", folder, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": os.environ["PATH"]},
        text=True,
    ) as process:
        assert process.stdout
        try:
            while "listening on" not in (line := process.stdout.readline()):
                assert line, "it ended"
            # Another host than the service has, as it always is: clients compare only that.
            yield S3(f"http://localhost:{line.strip().rpartition(':')[2]}", folder)
        finally:
            process.kill()
