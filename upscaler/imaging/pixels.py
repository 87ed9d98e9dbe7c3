"""The representation of images in memory."""

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""uint8 of shape (height, width, 3) for RGB or (height, width, 4) for RGBA with straight alpha.
Always upright, in sRGB, and C-contiguous."""
