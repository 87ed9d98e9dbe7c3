"""Programs for tests.test_one_place, which runs each in a process that imports edited packages."""

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from typing import Final

import httpx
from PIL import Image

from mock_server import MockServer
from tests.support.service import TOKENS, Resizer, serving
from upscaler.api.sizes import Size

Implementations = dict[str, httpx.Client]

SIZE: Final = (256, 300)
SIZE_FIELDS: Final = {"scale", "output_image_height", "output_image_width"}


def image_file(size: Size = SIZE) -> bytes:
    """A PNG."""
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, "PNG")
    return file.getvalue()


def fields(input_size: Size = SIZE, /, **more: object) -> dict[str, object]:
    """The fields of a request, which has the scale 1 if `more` names no size."""
    image = base64.b64encode(image_file(input_size)).decode()
    scale = {} if SIZE_FIELDS & more.keys() else {"scale": 1}
    return {"init_image": image, **scale, **more}


def printed(command: Callable[[Sequence[str]], object], *arguments: str) -> str:
    """What a command prints, in one line."""
    out = io.StringIO()
    with redirect_stdout(out), suppress(SystemExit):
        command(arguments)
    return " ".join(out.getvalue().split())


@contextmanager
def implementations() -> Iterator[Implementations]:
    """Clients of the mock and of the service, both served over loopback."""
    with ExitStack() as stack:
        mock = stack.enter_context(MockServer(tokens=TOKENS))
        headers = {"Authorization": f"Bearer {TOKENS[0]}"}
        yield {
            "mock": stack.enter_context(httpx.Client(base_url=mock.url, headers=headers)),
            "service": stack.enter_context(serving(Resizer())),
        }
