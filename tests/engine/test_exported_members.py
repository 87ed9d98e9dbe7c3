"""`Engine` as people import it."""

import upscaler
from upscaler.engine.engine import Engine


def test_the_engine_is_public() -> None:
    assert upscaler.Engine is Engine
