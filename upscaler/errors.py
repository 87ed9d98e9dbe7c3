"""Everything that can go wrong, each with the HTTP status it is answered with.

    UpscalerError               500  a fault on our side
    |-- NotHTTP                 400  what came is no request at all
    |-- InvalidRequest          422  a rule the request broke, told per field
    |-- ImageError              422  an image file that cannot be read, or is not taken
    |-- Unauthorized            401  no token, or a wrong one
    |-- UnknownJob              404  no asynchronous inference has this id, or no longer
    |-- NotAcceptable           406  nothing that the client accepts can be given
    |-- RequestTimeout          408  the body did not arrive in time
    |-- BodyTooLarge            413  more bytes than a request may have
    |-- HeadTooLarge            431  more bytes than a request's line and headers may have
    |-- InvalidSetting          500  an environment variable with a value that it cannot have
    |-- FileRefused             500  a file that a command cannot read or write as asked
    |-- WorkerFailed            500  a process of a benchmark that failed or died
    |-- Cancelled               500  whoever asked for it has gone; nobody is answered
    |-- JobFailed               any  an asynchronous inference failed: with the status of its error
    |-- TooSlow                 503  the picture takes longer than its answer may
    |-- Busy                    503  as much is being done as there is room for
    `-- Unavailable             503  this machine cannot do what was asked
        |-- WeightsUnavailable  503  weights are missing, damaged or cannot be fetched
        |-- DeviceUnavailable   503  the device or the precision does not exist here
        |-- Overflow            503  what a network computes of this picture is no number
        |-- RemoteFailed        503  a container that was to do the work failed
        |-- Unreachable         503  nothing is known of the container: Modal does not answer
        `-- OutOfMemory         503  there is not enough memory for this picture

An error is raised where the fault is known and says what its reader can do about it. The service
and the command line each turn it into an answer in one place. All of them can be pickled, since
some come from another machine. This module imports nothing of ours.
"""

import traceback
from typing import NamedTuple


class FieldError(NamedTuple):
    """One broken rule, as one entry of a 422 answer (RES-4).

    `loc` starts with `"body"` or `"header"` and ends with the field's name, `msg` tells a person
    what to do, and `type` is a stable word for programs. None of them repeats the field's value.
    """

    loc: tuple[str | int, ...]
    msg: str
    type: str


class UpscalerError(Exception):
    """The root: whatever this product raises on purpose."""

    status = 500

    @property
    def detail(self) -> str | list[dict[str, object]]:
        """The value of `detail` in the JSON answer: a sentence, or for a 422 the list of RES-4."""
        return str(self)

    @property
    def headers(self) -> dict[str, str]:
        """What the answer has to say besides, by the name of the header."""
        return {}


class NotHTTP(UpscalerError):
    """What came on a connection cannot be read as HTTP."""

    status = 400


class InvalidRequest(UpscalerError):
    """The request breaks at least one rule of the contract."""

    status = 422

    def __init__(self, *errors: FieldError) -> None:
        super().__init__(*errors)
        self.errors = errors

    def __str__(self) -> str:
        return "; ".join(f"{error.loc[-1]}: {error.msg}" for error in self.errors)

    @property
    def detail(self) -> list[dict[str, object]]:
        return [{**error._asdict(), "loc": list(error.loc)} for error in self.errors]


class ImageError(UpscalerError):
    """An image file cannot be read, or is not one that is taken.

    `type` is a stable word for programs. Whoever knows which field of a request the file came in
    turns this into an InvalidRequest with `of_field`.
    """

    status = 422

    def __init__(self, msg: str, type: str) -> None:  # noqa: A002  as a FieldError calls it
        super().__init__(msg, type)
        self.msg = msg
        self.type = type

    def __str__(self) -> str:
        return self.msg

    def of_field(self, field: str) -> InvalidRequest:
        """The same as a broken rule of the request's field."""
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
    """The client accepts none of the media types that an answer can have."""

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


class HeadTooLarge(UpscalerError):
    """The request's line and headers have more bytes than the service reads."""

    status = 431


class InvalidSetting(UpscalerError):
    """An environment variable has a value that it cannot have."""


class FileRefused(UpscalerError):
    """A file that a command cannot read or write as asked; `path` is as its user wrote it."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class WorkerFailed(UpscalerError):
    """A process of a benchmark failed or died; the text says how."""


class Cancelled(UpscalerError):
    """The work was given up because nobody waits for it any more."""


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
    """The picture takes longer than an answer of this kind may."""

    status = 503


class Busy(UpscalerError):
    """The request is fine, but there is no room for it now; there may be in `retry_after_s`."""

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
    """The request is fine, but this machine cannot serve it.

    The reason names files and devices of the machine: it is for its operator, not for a client.
    """

    status = 503

    @property
    def detail(self) -> str:
        return "the service cannot do this at present; its log says why"


class WeightsUnavailable(Unavailable):
    """A model's weights are missing, are not what they should be, or cannot be fetched."""


class DeviceUnavailable(Unavailable):
    """The device asked for is not on this machine, or cannot compute in that precision."""


class Overflow(Unavailable):
    """What the network computes of this picture is infinite or no number."""


class RemoteFailed(Unavailable):
    """A container that was to do the work died, took too long, or has a fault."""


class Unreachable(Unavailable):
    """Modal does not answer as it should, so that nothing is known of the work."""


class OutOfMemory(Unavailable):
    """Not even the smallest way to enlarge this picture fits into the memory that there is."""


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
