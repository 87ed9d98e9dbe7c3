import base64
import os

import httpx


def enlarge(file: bytes, times: float) -> bytes:
    answer = httpx.post(
        os.environ["UPSCALING_URL"] + "/upscaling",
        headers={"Authorization": "Bearer " + os.environ["UPSCALING_TOKEN"]},
        json={"init_image": base64.b64encode(file).decode(), "scale": times},
    )
    return base64.b64decode(answer.raise_for_status().json()["image_b64"])
