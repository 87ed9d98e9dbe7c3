"""What GPU containers return, as plain values.

So containers of an older and a newer deployment understand each other, and so does a terminal that
has none of the product's dependencies.
"""

from typing import TypedDict


class ResultPayload(TypedDict):
    """A result for the service: see `service.backend.UpscaleResult`.

    `finished_s` is when it was done, in seconds since 1970, and `device` the name of the GPU.
    """

    file: list[bytes]
    encoding: str
    as_file: bool
    model: str
    weights_sha256: str
    input_size: tuple[int, int]
    size: tuple[int, int]
    seconds: dict[str, float]
    finished_s: float
    device: str


class FileResult(TypedDict):
    """The result for a terminal's image `key`: an error message, or a file.

    `seconds` is how long the container worked on it.
    """

    key: int
    error: str | None
    file: list[bytes]
    size: tuple[int, int]
    seconds: float
    device: str
