"""How many faces the pictures of a mock have, which a test may change."""

from upscaler.api.limits import MAX_FACES


class FaceCount:
    """The number of faces of every picture: `count`, of 0 to MAX_FACES.

    It is None for a service without the face model, and stays so.
    """

    def __init__(self, count: int | None) -> None:
        self.count = count
        self._initial = count

    def set(self, count: object) -> None:
        """Set the number. Raises ValueError for what is none, and without the face model."""
        if self._initial is None:
            raise ValueError("this mock is a service without the face model: start it with --faces")
        self.count = parse_faces(count)

    def reset(self) -> None:
        """Restore the number of the start."""
        self.count = self._initial


def parse_faces(value: object) -> int:
    """Return a number of faces, which must be one that the service restores; raises ValueError."""
    if type(value) is not int or not 0 <= value <= MAX_FACES:
        raise ValueError(f"expected an integer from 0 to {MAX_FACES}")
    return value
