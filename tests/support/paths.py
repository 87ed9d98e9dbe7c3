"""Where the repository and its photo are."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PHOTO: Final = ROOT / "docs" / "photo.png"
