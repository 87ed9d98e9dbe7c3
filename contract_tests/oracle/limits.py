"""The limits of the API as the oracle knows them, apart from any implementation's."""

from typing import Final

MIN_INPUT_PX: Final = 256
"""The shortest side of an input (REQ-13)."""
MAX_INPUT_PX: Final = 2048
"""The longest side of an input (REQ-13)."""
MAX_OUTPUT_PX: Final = 8192
"""The longest side of an output (REQ-14)."""
MAX_FIELDS: Final = 100
"""The most fields of a request (REQ-11)."""
MAX_NAME: Final = 100
"""The most characters of an unknown field's name that an error repeats (RES-4)."""
MAX_BODY_BYTES: Final = 32 * 2**20
"""The longest body at the level `strict` (RES-7)."""
MAX_ASYNC_BYTES: Final = 10 * 2**20
"""The longest asynchronous body: 10 MB, in the larger sense of the unit (ASY-4)."""
