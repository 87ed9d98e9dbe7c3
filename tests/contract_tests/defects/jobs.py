"""Mistakes with the ids of asynchronous inferences, and with their limits."""

import itertools
import uuid
from collections.abc import Callable
from types import SimpleNamespace
from typing import Final

import httpx

from tests.contract_tests.defects.asynchronous import POLLS, RESULTS
from tests.contract_tests.defects.planting import (
    Answer,
    Defect,
    Planting,
    changed_answer,
    patched,
    replaced,
)
from tests.contract_tests.defects.probes import getting, promised, sending
from upscaler.api import limits
from upscaler.service import owners

MEGABYTE: Final = b" " * (10 * 2**20 - 2) + b"{}"
"""A body of as many bytes as an asynchronous request may have."""

UNKNOWN: Final = "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6"


def unknown(start: str, answering: Callable[[Answer], Answer]) -> Planting:
    """Answer otherwise at an id that is not known."""
    return changed_answer(
        lambda asked, answer: (
            answering(answer) if asked.path.startswith(start) and answer.status == 404 else answer
        )
    )


def ids(make: Callable[[], Callable[[int], str]]) -> Planting:
    """Give inferences other ids."""
    return replaced(owners, "secrets", lambda _: SimpleNamespace(token_urlsafe=make()))


def counted() -> Callable[[int], str]:
    """1, 2, 3."""
    numbers = itertools.count(1)
    return lambda _: str(next(numbers))


def few() -> Callable[[int], str]:
    """Four digits in no order that is seen at once."""
    numbers = itertools.count(1)
    return lambda _: f"{next(numbers) * 7919 % 10_000:04}"


def clocked() -> Callable[[int], str]:
    """The time, and this machine."""
    return lambda _: str(uuid.uuid1(node=0x02_42_AC_11_00_02, clock_seq=7))


def ids_alike(client: httpx.Client) -> object:
    """Whether the ids of two inferences are long, and have hardly anything in common."""
    first, second = promised(client), promised(client)
    same = sum(a == b for a, b in zip(first, second, strict=False))
    return min(len(first), len(second)) >= 16, same < len(first) / 2


KEPT: Final = (
    Defect(
        "poll-unknown-pending",
        "Says pending of an id that it does not know.",
        ("ASY-4", "ASY-2"),
        unknown(POLLS, lambda answer: answer.saying({"status": "pending"}, 200)),
        getting(POLLS + UNKNOWN),
    ),
    Defect(
        "poll-unknown-500",
        "Has a fault of its own at an id that it does not know.",
        ("ASY-4", "RES-5"),
        unknown(POLLS, lambda answer: answer.saying({"detail": "Internal Server Error"}, 500)),
        getting(POLLS + UNKNOWN),
    ),
    Defect(
        "result-unknown-null",
        "Gives null, with 200, at an id that it does not know.",
        ("ASY-4", "ASY-3"),
        unknown(RESULTS, lambda answer: answer.saying(None, 200)),
        getting(RESULTS + UNKNOWN),
    ),
    Defect(
        "result-unknown-500",
        "Has a fault of its own at a result that it does not know.",
        ("ASY-4", "RES-5"),
        unknown(RESULTS, lambda answer: answer.saying({"detail": "Internal Server Error"}, 500)),
        getting(RESULTS + UNKNOWN),
    ),
    Defect(
        "async-body-of-32-mib",
        "Allows an asynchronous request as many bytes as any other.",
        ("ASY-4",),
        patched(limits, "ASYNC_MAX_BODY_BYTES", limits.MAX_BODY_BYTES),
        sending(b" " + MEGABYTE, X_OctoAI_Async="1"),
    ),
    Defect(
        "async-body-of-10-mb",
        "Takes 10 MB for ten million bytes.",
        ("ASY-4",),
        patched(limits, "ASYNC_MAX_BODY_BYTES", 10_000_000),
        sending(MEGABYTE, X_OctoAI_Async="1"),
    ),
    Defect(
        "id-counted",
        "Counts inferences, and gives the number as id.",
        ("ASY-5",),
        ids(counted),
        ids_alike,
    ),
    Defect(
        "id-of-four-digits",
        "Gives ids that are found out by trying.",
        ("ASY-5",),
        ids(few),
        ids_alike,
    ),
    Defect(
        "id-of-the-time",
        "Gives ids of the time and the machine, as uuid1 does.",
        ("ASY-5",),
        ids(clocked),
        ids_alike,
    ),
)
