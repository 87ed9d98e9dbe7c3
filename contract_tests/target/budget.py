"""How many images may be paid for."""

import threading
from decimal import Decimal
from typing import Final

from contract_tests.failures import BudgetReached

PRICE_USD: Final = Decimal("0.004")
"""What a request cost at OctoAI (its page)."""


class Budget:
    """Counts what may be billed before it is sent, and refuses what is beyond the limit.

    Each attempt at a request counts for itself: an image whose response was lost was made, too.
    `price` of one and `max_cost` of all are in dollars. At most `max_requests` may be billed, or
    with None as many as `max_cost` allows. Threads may share it.
    """

    def __init__(
        self,
        max_cost: Decimal = Decimal(1),
        price: Decimal = PRICE_USD,
        max_requests: int | None = None,
    ) -> None:
        self.price = price
        self.max_cost = max_cost
        affordable = int(max_cost / price) if price else None
        limits = [limit for limit in (affordable, max_requests) if limit is not None]
        self.limit = min(limits, default=None)
        self.billed = 0
        self.lost = 0
        """How many of these got no image: whether one was made is not known."""
        self.unexpected_charge = False
        self._lock = threading.Lock()

    @property
    def spent(self) -> Decimal:
        """The most that the requests so far can have cost, in dollars."""
        return self.billed * self.price

    def reserve(self, images: int = 1) -> None:
        """Count an attempt that may be billed, as so many requests as it asks for images.

        Raises BudgetReached if that would exceed the limit.
        """
        with self._lock:
            self._require_left(images)
            self.billed += images

    def release(self, images: int = 1) -> None:
        """Return the reservation of an attempt that was refused, and so cost nothing."""
        with self._lock:
            self.billed -= images

    def record_lost(self, images: int = 1) -> None:
        """Note that an attempt that is counted got none of its images."""
        with self._lock:
            self.lost += images

    def allow_free(self) -> None:
        """Allow an attempt that must be refused, and so should cost nothing.

        Raises BudgetReached if such an attempt may have been billed before, and the limit is
        reached.
        """
        with self._lock:
            if self.unexpected_charge:
                self._require_left(1)

    def record_unexpected_charge(self) -> None:
        """Count an attempt that should have been refused, and may have got an image."""
        with self._lock:
            self.unexpected_charge = True
            self.billed += 1

    def _require_left(self, images: int) -> None:
        if self.limit is not None and self.billed + images > self.limit:
            lost = f", {self.lost} of them without an image," if self.lost else ""
            raise BudgetReached(
                f"{self.billed} requests{lost} cost ${self.spent}, and another one would exceed "
                f"--max-cost {self.max_cost} or --max-requests"
            )
