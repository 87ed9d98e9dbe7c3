"""What GPU containers return, as plain values.

Modal pickles them. Plain values can be read by containers of an older or newer deployment, and by a
terminal that has none of the product's dependencies.
"""

from typing import Any, NotRequired, TypedDict


class Upload(TypedDict):
    """Signed URLs to upload a result to and to read it from.

    If it is `required`, nobody has room for a result that is returned instead.
    """

    put_url: str
    get_url: str
    required: bool


class StoredPayload(TypedDict):
    """Where the body of a response is, and how many bytes it has; the URL is signed, for fronts."""

    get_url: str
    size_bytes: int


class ResultPayload(TypedDict):
    """A result for the service: see `service.backend.UpscaleResult`.

    `file` is in chunks, and empty if the result is `stored`. `seconds` are by stage, `finished_s`
    is the time of completion in seconds since 1970, and `device` is the name of the GPU.
    """

    faces: NotRequired[int | None]

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
    stored: NotRequired[StoredPayload]


class FileResult(TypedDict):
    """The result for a terminal's image number `key`: an error message, or a file in chunks.

    `size` is its width and height in pixels, and `seconds` the time that the container took.
    """

    key: int
    error: str | None
    file: list[bytes]
    size: tuple[int, int]
    seconds: float
    device: str


class CallState(TypedDict):
    """How far a call of the service is; there is none before a container has it.

    `since_s` is when it came to that, in seconds since 1970, and `file_bytes` the size of the file
    that a completed one returns. `done` is how much of its rows, from 0 to 1. A call is completed,
    too, if it was `cancelled`.
    """

    completed: bool
    file_bytes: int
    since_s: float
    done: NotRequired[float]
    cancelled: NotRequired[bool]


class JobRecord(TypedDict):
    """What a front has started: whose job it is, and what; see `service.jobs.store.JobView`."""

    id: str
    owner: str
    model: str
    input_size: tuple[int, int]
    size: tuple[int, int]
    created_s: float
    estimated_s: float
    cancelled: NotRequired[bool]


class KeyRecord(TypedDict):
    """The job that was started with an Idempotency-Key, and the fingerprint of its request."""

    job_id: str
    fingerprint: str
    since_s: float


class BatchPayload(TypedDict):
    """A batch; see `service.jobs.store.BatchRecord`.

    Each member is its name, the id of its job, and the status, detail and headers of the response
    to a request that became none.
    """

    owner: str
    created_s: float
    members: list[tuple[str, str | None, tuple[Any, ...] | None]]
