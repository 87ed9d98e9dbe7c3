"""The headers of the API's requests and responses besides those of HTTP."""

from typing import Final

REQUEST_ID_HEADER: Final = "X-User-Request-ID"
"""On every response; OctoAI's client shows it in its errors (RES-6)."""
ASYNC_HEADER: Final = "X-OctoAI-Async"
"""`1` asks for an asynchronous inference (ASY-1)."""
DRY_RUN_HEADER: Final = "X-Upscaler-Dry-Run"
"""`1` asks for the result's size and time without inference. This and all below are our own."""
INPUT_SIZE_HEADER: Final = "X-Upscaler-Input-Size"
OUTPUT_SIZE_HEADER: Final = "X-Upscaler-Output-Size"
"""On responses with an image: width and height in pixels, such as 608x512."""
MODEL_HEADER: Final = "X-Upscaler-Model"
WEIGHTS_HEADER: Final = "X-Upscaler-Weights-SHA256"
COST_HEADER: Final = "X-Upscaler-Cost-USD"
"""On responses with an image, if the service has a price: the cost in dollars."""
