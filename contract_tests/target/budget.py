"""How many pictures may be paid for."""

import threading
from decimal import Decimal
from typing import Final

from contract_tests.failures import BudgetReached

PRICE_USD: Final = Decimal("0.004")
"""What a request cost at OctoAI (its page)."""


class Budget:
    """Counts the requests that cost money, before they are sent, and lets no more through.

    `price` is that of a request and `max_cost` of all of them, in dollars; `max_requests` is how
    many may be billed, or None for as many as `max_cost` allows. Threads may share it.
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
        self.unexpected_charge = False
        self._lock = threading.Lock()

    @property
    def spent(self) -> Decimal:
        """What the requests so far can have cost at most, in dollars."""
        return self.billed * self.price

    def reserve(self) -> None:
        """Count a request that may be billed; raises BudgetReached if there can be none more."""
        with self._lock:
            self._require_one_left()
            self.billed += 1

    def allow_free(self) -> None:
        """Let a request through that must be refused, and so costs nothing.

        Raises BudgetReached if such a one did cost something, and nothing is left for another.
        """
        with self._lock:
            if self.unexpected_charge:
                self._require_one_left()

    def _require_one_left(self) -> None:
        if self.limit is not None and self.billed >= self.limit:
            raise BudgetReached(
                f"{self.billed} requests were paid for, ${self.spent}, and another one is "
                f"more than --max-cost {self.max_cost} or --max-requests allows"
            )

    def release(self) -> None:
        """Take one back that was answered without a picture, and so cost nothing."""
        with self._lock:
            self.billed -= 1

    def record_unexpected_charge(self) -> None:
        """Count one that should have been refused, and was not."""
        with self._lock:
            self.unexpected_charge = True
            self.billed += 1
