"""What can go wrong, and that it survives the way from one machine to another."""

import pickle

import pytest

from upscaler import errors
from upscaler.errors import (
    Busy,
    FieldError,
    FileRefused,
    ImageError,
    InvalidRequest,
    JobFailed,
    UpscalerError,
)

SPECIAL = [
    InvalidRequest(
        FieldError(("body", "scale"), "must be more than 0", "greater_than"),
        FieldError(("body", "init_image"), "is missing", "missing"),
    ),
    FileRefused("photos/a.png", "there is no such image"),
    Busy("there is no room", 7),
    JobFailed(JobFailed.Response(503, "this picture could not be made", {"Retry-After": "7"})),
    ImageError("this image is animated: send a still one", "image_animated"),
]
PLAIN = [
    kind(f"the reason of {name}")
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, UpscalerError) and kind not in map(type, SPECIAL)
]


@pytest.mark.parametrize("error", [*SPECIAL, *PLAIN], ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_after_it_was_pickled(error: UpscalerError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert vars(again) == vars(error)
    assert (str(again), again.status) == (str(error), error.status)
    assert (again.detail, again.headers) == (error.detail, error.headers)


def test_every_error_says_what_it_is_about() -> None:
    assert str(SPECIAL[0]) == "scale: must be more than 0; init_image: is missing"
    assert str(SPECIAL[1]) == "photos/a.png: there is no such image"
    assert str(SPECIAL[2]) == "there is no room"
    assert str(SPECIAL[3]) == "this picture could not be made"
    assert str(SPECIAL[4]) == "this image is animated: send a still one"
