"""The limits of the API, which messages, help texts and the playground are built from."""

from typing import Final

from upscaler.errors import BodyTooLarge

MIN_INPUT_PX: Final = 256
"""The shortest side an input may have (REQ-13)."""
MAX_INPUT_PX: Final = 2048
"""The longest side an input may have (REQ-13)."""
MAX_OUTPUT_PX: Final = 8192
"""The longest side an output may have (REQ-14)."""
MAX_FACES: Final = 32
"""The most faces of a picture that are restored (our choice). Each takes as long as an image of
512x512 pixels."""
MAX_BODY_BYTES: Final = 8 * MAX_INPUT_PX**2
"""The most bytes a request body may have: 32 MiB (RES-7, our choice). The largest PNG that meets
REQ-13, of noise with alpha at 8 bits per sample, takes 5.4 bytes per pixel in base64."""
ASYNC_MAX_BODY_BYTES: Final = 10 * 2**20
"""The most bytes the body of an asynchronous request may have. OctoAI's "10 MB" is read as 10 MiB,
the larger of its meanings (ASY-4)."""
MAX_COMMAS: Final = 10_000
"""How many commas a body may have (our choice). A request needs seven, and its URL may have some.
An empty object with its comma, three bytes of JSON, takes 64 bytes in memory."""
MAX_FIELDS: Final = 100
"""How many fields a request may have. There are eight, and each unknown one is an error."""
MAX_NAME_SHOWN: Final = 100
"""How many characters of an unknown field's name an error repeats."""
RESULT_LIFETIME_S: Final = 24 * 60 * 60
"""How long the result of an asynchronous inference is kept (ASY-4)."""


def check_body_size(size_bytes: int, *, asynchronous: bool = False) -> None:
    """Raise BodyTooLarge for a body of more than a request may have (RES-7, ASY-4)."""
    most = ASYNC_MAX_BODY_BYTES if asynchronous else MAX_BODY_BYTES
    if size_bytes > most:
        kind = "an asynchronous request" if asynchronous else "a request"
        raise BodyTooLarge(f"the body of {kind} may have at most {most} bytes")
