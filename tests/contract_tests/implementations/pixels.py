"""What the implementations have in common: Pillow reads, resizes and writes their images.

    python pixels.py

does so for a program in another language: each line of its input is a JSON object, and so is each
line of its output. With `file` alone it tells the size in it, with `width`, `height` and `encoding`
it returns another file; both files are base64. What cannot be read has an `error`.
"""

import base64
import io
import json
import sys

from PIL import Image


class NoImage(ValueError):
    """A file that is no image, or only a part of one."""


def read(file: bytes) -> Image.Image:
    """All of an image; raises NoImage."""
    try:
        image = Image.open(io.BytesIO(file))
        if max(image.size) <= 2048:  # its size is no secret, and enough to refuse it
            image.load()
    except Exception as error:  # Pillow raises nearly every builtin exception on a bad file
        raise NoImage(str(error)) from error
    return image


def resized(image: Image.Image, width: int, height: int, encoding: str) -> bytes:
    """The file of the image in another size, as a "png" or a "jpeg"."""
    simple = image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGBA")
    made = simple.resize((width, height), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    if encoding == "jpeg":
        made.convert("RGB").save(buffer, "jpeg")
    else:
        made.save(buffer, "png", compress_level=1)  # as large as this may be, and in no time
    return buffer.getvalue()


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            image = read(base64.b64decode(asked["file"]))
            if "width" in asked:
                file = resized(image, asked["width"], asked["height"], asked["encoding"])
                told: dict[str, object] = {"file": base64.b64encode(file).decode()}
            else:
                told = {"width": image.width, "height": image.height}
        except NoImage as error:
            told = {"error": str(error)}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
