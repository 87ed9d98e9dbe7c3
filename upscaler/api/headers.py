"""The names of the headers that requests and responses of the API have besides HTTP's own."""

from typing import Final

REQUEST_ID_HEADER: Final = "X-User-Request-ID"
"""On every response; OctoAI's client prints it in its errors (RES-6)."""
ASYNC_HEADER: Final = "X-OctoAI-Async"
"""`1` asks for an asynchronous inference (ASY-1)."""
DRY_RUN_HEADER: Final = "X-Upscaler-Dry-Run"
"""`1` asks what would come of the request, without inference. Ours, as the following are."""
INPUT_SIZE_HEADER: Final = "X-Upscaler-Input-Size"
OUTPUT_SIZE_HEADER: Final = "X-Upscaler-Output-Size"
"""On answers with a picture: width and height in pixels, such as 608x512."""
MODEL_HEADER: Final = "X-Upscaler-Model"
WEIGHTS_HEADER: Final = "X-Upscaler-Weights-SHA256"
COST_HEADER: Final = "X-Upscaler-Cost-USD"
"""On answers with a picture, if the service knows its price: what its work cost in dollars."""
