"""All errors of this product, each with the HTTP status of its response.

    UpscalerError               500  the root of all others
    |-- NotHTTP                 400  the connection received no valid HTTP
    |-- InvalidRequest          422  the request breaks rules, listed per field
    |-- ImageError              422  an image file that cannot be read, or is not accepted
    |-- Unauthorized            401  no token, or a wrong one
    |-- UnknownJob              404  no asynchronous inference has this id, or no longer
    |-- NotAcceptable           406  no media type that the client accepts is offered
    |-- RequestTimeout          408  the body did not arrive in time
    |-- BodyTooLarge            413  more bytes than a request may have
    |-- UnsupportedCoding       415  the body has a Content-Encoding that is not read
    |   `-- CompressedBatch 415  that of a batch has any
    |-- HeadTooLarge            431  more bytes than a request's line and headers may have
    |-- InvalidSetting          500  an environment variable with an invalid value
    |-- FileRefused             500  a file that a command cannot read or write as asked
    |-- WorkerFailed            500  a process of a benchmark that failed or died
    |-- Cancelled               500  the client has disconnected; nothing is sent
    |-- JobFailed               any  an asynchronous inference failed, with the status of its error
    |-- TooSlow                 503  the image takes longer than the deadline of a response
    |-- Busy                    503  a queue or a memory limit is full
    `-- Unavailable             503  this machine cannot serve the request
        |-- WeightsUnavailable  503  weights are missing, damaged or cannot be fetched
        |-- DeviceUnavailable   503  the device or the precision does not exist here
        |-- Overflow            503  the output of the network is infinite or NaN
        |-- RemoteFailed        503  the container that ran the work failed
        |-- NotStored           503  the bucket for results did not take one
        |-- StoreUnavailable    503  the folder with asynchronous inferences cannot be used
        |-- Unreachable         503  Modal or the bucket does not answer, so the state is unknown
        `-- OutOfMemory         503  there is not enough memory for this image

An error is raised where the fault is known, and its text says what its reader can do about it. The
service and the command line each handle them in one place. All can be pickled, since some come
from another machine. This module imports nothing of the package.
"""

import traceback
from typing import NamedTuple


class FieldError(NamedTuple):
    """One broken rule, as an entry of a 422 response (RES-4).

    `loc` starts with `"body"` or `"header"` and ends with the field's name, `msg` says what to do,
    and `type` is a stable identifier for programs. None of them repeats the field's value.
    """

    loc: tuple[str | int, ...]
    msg: str
    type: str


class UpscalerError(Exception):
    """The root of all errors that this product raises on purpose."""

    status = 500

    @property
    def detail(self) -> str | list[dict[str, object]]:
        """The JSON response's `detail`: a sentence, or for a 422 the list of RES-4."""
        return str(self)

    @property
    def headers(self) -> dict[str, str]:
        """Additional headers of the response, by name."""
        return {}


class NotHTTP(UpscalerError):
    """What a connection received is not valid HTTP."""

    status = 400


class InvalidRequest(UpscalerError):
    """The request breaks at least one rule of the contract."""

    status = 422

    def __init__(self, *errors: FieldError) -> None:
        super().__init__(*errors)  # all arguments, since pickle calls the class with them again
        self.errors = errors

    def __str__(self) -> str:
        return "; ".join(f"{error.loc[-1]}: {error.msg}" for error in self.errors)

    @property
    def detail(self) -> list[dict[str, object]]:
        return [{**error._asdict(), "loc": list(error.loc)} for error in self.errors]


def no_face_model() -> InvalidRequest:
    """The error of a request for what a service without a face model cannot do (REQ-10)."""
    msg = "there is no face model here: leave face_enhance out or false"
    return InvalidRequest(FieldError(("body", "face_enhance"), msg, "face_enhance_unavailable"))


class ImageError(UpscalerError):
    """An image file cannot be read, or is of a kind that is not accepted.

    `type` is a stable identifier for programs. The decoder does not know which field of a request
    the file came in: the service turns this into an InvalidRequest by `of_field`.
    """

    status = 422

    def __init__(self, msg: str, type: str) -> None:  # noqa: A002  as a FieldError calls it
        super().__init__(msg, type)
        self.msg = msg
        self.type = type

    def __str__(self) -> str:
        return self.msg

    def of_field(self, field: str) -> InvalidRequest:
        """Return the same error as an InvalidRequest on a field of the body."""
        return InvalidRequest(FieldError(("body", field), self.msg, self.type))


class Unauthorized(UpscalerError):
    """The bearer token is missing, malformed or not one of ours."""

    status = 401

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class UnknownJob(UpscalerError):
    """No asynchronous inference has this id, or its result is no longer kept."""

    status = 404


class NotAcceptable(UpscalerError):
    """The client accepts none of the media types that a response can have."""

    status = 406

    @property
    def headers(self) -> dict[str, str]:
        return {"Vary": "Accept"}


class RequestTimeout(UpscalerError):
    """The body of the request did not arrive in time."""

    status = 408


class BodyTooLarge(UpscalerError):
    """The request body has more bytes than the service reads."""

    status = 413


class UnsupportedCoding(UpscalerError):
    """The body of the request is compressed in a way that is not read."""

    status = 415

    @property
    def headers(self) -> dict[str, str]:
        return {"Accept-Encoding": "gzip, deflate"}  # what would be read (RFC 9110, 12.5.3)


class CompressedBatch(UnsupportedCoding):
    """The body of a batch is compressed; it is read as it arrives, and as it is."""

    @property
    def headers(self) -> dict[str, str]:
        return {"Accept-Encoding": "identity"}


class HeadTooLarge(UpscalerError):
    """The request line and headers have more bytes than the service reads."""

    status = 431


class InvalidSetting(UpscalerError):
    """An environment variable has an invalid value."""


class FileRefused(UpscalerError):
    """A file that a command cannot read or write as asked; `path` is as the user wrote it."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class WorkerFailed(UpscalerError):
    """A process of a benchmark failed or died; the text says how."""


class Cancelled(UpscalerError):
    """The work was cancelled because no client waits for it any more."""


class JobFailed(UpscalerError):
    """An asynchronous inference failed; answered as a synchronous request would have been."""

    class Response(NamedTuple):
        """The response to an error, which is kept in place of the error itself."""

        status: int
        detail: str | list[dict[str, object]]
        headers: dict[str, str]

    def __init__(self, response: Response) -> None:
        super().__init__(response)
        self.status = response.status
        self._response = response

    def __str__(self) -> str:
        return str(self.detail)

    @property
    def detail(self) -> str | list[dict[str, object]]:
        return self._response.detail

    @property
    def headers(self) -> dict[str, str]:
        return self._response.headers


class TooSlow(UpscalerError):
    """The image takes longer than the deadline of its response."""

    status = 503


class Busy(UpscalerError):
    """The request is valid, but there is no room for it; there may be in `retry_after_s`."""

    status = 503

    def __init__(self, reason: str, retry_after_s: int) -> None:
        super().__init__(reason, retry_after_s)
        self.reason = reason
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.reason

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.retry_after_s)}


class Unavailable(UpscalerError):
    """The request is valid, but this machine cannot serve it.

    The text names files and devices of the machine, so it is logged and not sent to the client.
    Errors that pass by themselves have a `retry_after_s`.
    """

    status = 503
    retry_after_s = 0

    @property
    def detail(self) -> str:
        return "the service cannot do this at present; its log says why"

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.retry_after_s)} if self.retry_after_s else {}


class WeightsUnavailable(Unavailable):
    """A model's weights are missing, do not match their checksum, or cannot be downloaded."""


class DeviceUnavailable(Unavailable):
    """The requested device is not on this machine, or does not support the precision."""


class Overflow(Unavailable):
    """The output of the network is infinite or NaN."""


class RemoteFailed(Unavailable):
    """The container that ran the work died, timed out, or raised an unexpected error.

    Or the service that `upscaler image --remote` asks failed at it.
    """


class NotStored(Unavailable):
    """The bucket for results did not take one, and there is no room for it elsewhere."""

    retry_after_s = 1  # then results go another way


class StoreUnavailable(Unavailable):
    """The folder with asynchronous inferences cannot be read or written; the text says why."""

    retry_after_s = 5


class Unreachable(Unavailable):
    """Modal or the bucket does not answer as expected, so the state of the work is unknown.

    Or the service that `upscaler image --remote` asks does not answer.
    """

    retry_after_s = 5


class OutOfMemory(Unavailable):
    """Even in the smallest parts, this image does not fit into the available memory."""


def release_frames(error: BaseException) -> None:
    """Clear the local variables of all frames in the tracebacks of `error`, such as pixels.

    The error can still be logged. A future holds its error, the error its traceback, and a frame in
    there the future: such a cycle stays until the garbage collector runs, which counts objects and
    not their bytes, so that may take long.
    """
    todo: list[BaseException | None] = [error]
    seen: set[BaseException] = set()
    while todo:
        each = todo.pop()
        if each is not None and each not in seen:
            seen.add(each)
            traceback.clear_frames(each.__traceback__)
            todo += [each.__cause__, each.__context__]
