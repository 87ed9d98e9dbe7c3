"""What GPU containers send back, in plain values.

So a container of yesterday's deployment and one of today's still understand each other, and so does
a terminal that has none of the product's packages.
"""

from typing import TypedDict


class ResultPayload(TypedDict):
    """What was made for the service: see `service.backend.UpscaleResult`.

    `finished_s` is when, in seconds since 1970, and `device` what it was made on.
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
    """What became of a terminal's image `key`: an error for people, or else a file.

    `seconds` are those that the container worked for it.
    """

    key: int
    error: str | None
    file: list[bytes]
    size: tuple[int, int]
    seconds: float
    device: str
