"""Download a file of weights, and verify it. Apart, since httpx2 takes a while to import."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx2

from upscaler.errors import WeightsUnavailable
from upscaler.files import atomic_write
from upscaler.models import Checkpoint

TIMEOUT: Final = httpx2.Timeout(60.0, connect=10.0)
"""Seconds without any data, not for the whole download."""


def download(
    url: str,
    path: Path,
    name: str,
    expected: Checkpoint,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Download `url` to `path` if it is the expected file; otherwise leave nothing there.

    A transient error is retried once. `name` is that of the model, for messages. Raises
    WeightsUnavailable.
    """
    try:
        try:
            _download(url, path, expected, progress)
        except httpx2.HTTPError as error:
            if not _is_transient(error):
                raise
            _download(url, path, expected, progress)
    except (httpx2.HTTPError, OSError, ImportError) as error:
        # httpx2 raises ImportError for a SOCKS proxy without the package that it needs for that.
        raise WeightsUnavailable(
            f"the weights of {name} could not be fetched from {url} ({_describe(error)}): "
            f"fetch {expected.filename} elsewhere and set UPSCALER_WEIGHTS to its folder"
        ) from error


def _download(
    url: str, path: Path, expected: Checkpoint, progress: Callable[[int, int], None] | None
) -> None:
    """Raises WeightsUnavailable for another file, and what httpx2 and the file system raise."""
    digest = hashlib.sha256()
    done = 0
    with atomic_write(path) as file:
        with httpx2.stream(
            "GET",
            url,
            headers={"Accept-Encoding": "identity"},  # the SHA-256 is that of the file as it is
            follow_redirects=True,  # GitHub's releases redirect to another host
            timeout=TIMEOUT,
        ) as response:
            response.raise_for_status()
            for chunk in response.iter_raw():
                done += len(chunk)
                if done > expected.size_bytes:
                    break  # it is another file, which may have no end
                digest.update(chunk)
                file.write(chunk)
                if progress:
                    progress(done, expected.size_bytes)
        if digest.hexdigest() != expected.sha256:
            raise WeightsUnavailable(
                f"{url} sent a file with SHA-256 {digest.hexdigest()}, not {expected.sha256}: "
                "refused"
            )


def _is_transient(error: httpx2.HTTPError) -> bool:
    """Whether a retry may succeed: after a connection error, a 408, a 429 or any 5xx."""
    if not isinstance(error, httpx2.HTTPStatusError):
        return True
    return error.response.status_code in (408, 429) or error.response.is_server_error


def _describe(error: Exception) -> str:
    if isinstance(error, httpx2.HTTPStatusError):
        return f"HTTP status {error.response.status_code}"
    return str(error) or type(error).__name__
