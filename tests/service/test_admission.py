"""Who is let in: places in line, and bytes in memory."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upscaler.errors import Busy
from upscaler.service.queue import MAX_RETRY_AFTER_S, MIN_RETRY_AFTER_S, Admission


def test_so_many_may_wait_and_one_has_the_machine() -> None:
    admission = Admission(queue_length=2, memory_bytes=0)
    with admission.slot(5), admission.slot(5):
        admission.check_room()
        with admission.slot(5):
            assert admission.is_full
            with pytest.raises(Busy), admission.slot(5):
                pytest.fail("it must not be let in")
            with pytest.raises(Busy):
                admission.check_room()
        admission.check_room()
    assert admission.slots == []


@pytest.mark.parametrize(
    ("estimated_s", "retry_after_s"),
    [(0.0, MIN_RETRY_AFTER_S), (0.2, 1), (7.2, 8), (99_999.0, MAX_RETRY_AFTER_S)],
)
def test_a_refusal_says_when_the_one_at_work_should_be_done(
    estimated_s: float, retry_after_s: int
) -> None:
    admission = Admission(queue_length=1, memory_bytes=0)
    with admission.slot(estimated_s), admission.slot(1e9), pytest.raises(Busy) as refusal:
        admission.check_room()
    assert refusal.value.headers == {"Retry-After": str(retry_after_s)}
    assert str(retry_after_s) in refusal.value.detail


def test_a_place_is_given_back_whatever_happens_to_the_picture() -> None:
    admission = Admission(queue_length=0, memory_bytes=0)
    with pytest.raises(ZeroDivisionError), admission.slot(1):
        raise ZeroDivisionError
    admission.check_room()


def scene(work: Callable[[Admission], Awaitable[None]]) -> None:
    asyncio.run(work(Admission(queue_length=9, memory_bytes=0)))  # type: ignore[arg-type]


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_as_many_have_the_machine_as_may_and_no_more(at_once: int) -> None:
    most = 0

    async def act() -> None:
        admission = Admission(queue_length=9, memory_bytes=0, at_once=at_once)
        running = 0

        async def one() -> None:
            nonlocal running, most
            with admission.slot(1) as place:
                async with place.acquire():
                    running += 1
                    most = max(most, running)
                    assert admission.waiting == len(admission.slots) - running
                    await asyncio.sleep(0.001)
                    running -= 1

        await asyncio.gather(*(one() for _ in range(9)))
        assert admission.slots == []

    asyncio.run(act())
    assert most == at_once


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_those_at_work_do_not_count_as_waiting(at_once: int) -> None:
    admission = Admission(queue_length=1, memory_bytes=0, at_once=at_once)
    with ExitStack() as places:
        for _ in range(at_once + 1):
            admission.check_room()
            places.enter_context(admission.slot(1))
        with pytest.raises(Busy):
            admission.check_room()


def test_turns_come_one_at_a_time_and_in_order() -> None:
    order: list[str] = []

    async def one(admission: Admission, name: str) -> None:
        with admission.slot(1) as place:
            async with place.acquire():
                order.append(f"{name} begins")
                await asyncio.sleep(0)
                assert admission.waiting == len(admission.slots) - 1
                order.append(f"{name} ends")

    async def all_of_them(admission: Admission) -> None:
        await asyncio.gather(*(one(admission, name) for name in "abc"))
        assert admission.waiting == 0

    scene(all_of_them)
    assert order == [f"{name} {what}" for name in "abc" for what in ("begins", "ends")]


def test_whoever_goes_away_while_waiting_holds_nobody_up() -> None:
    async def play(admission: Admission) -> None:
        async def wait() -> None:
            with admission.slot(1) as place:
                async with place.acquire():
                    pytest.fail("its turn must not come")

        with admission.slot(1) as first, admission.slot(1) as last:
            async with first.acquire():
                impatient = asyncio.create_task(wait())
                await asyncio.sleep(0)
                assert admission.waiting == 2
                impatient.cancel()
                await asyncio.gather(impatient, return_exceptions=True)
                assert admission.waiting == 1
            async with asyncio.timeout(5), last.acquire():
                assert admission.waiting == 0

    scene(play)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 120)), max_size=40))
def test_no_requests_together_hold_more_than_there_is(steps: list[tuple[int, int]]) -> None:
    """Refused or not, what is counted is what the requests were allowed last."""
    admission = Admission(queue_length=0, memory_bytes=100)
    allowed = [0, 0, 0, 0]
    memories = [admission.reservation() for _ in allowed]
    entered = [memory.__enter__() for memory in memories]
    for who, size in steps:
        others = sum(allowed) - allowed[who]
        if others + size <= 100:
            entered[who].reserve(size)
            allowed[who] = size
        else:
            with pytest.raises(Busy):
                entered[who].reserve(size)
        assert admission.held_bytes == sum(allowed)
    for memory in memories:
        memory.__exit__(None, None, None)
    assert admission.held_bytes == 0


def test_what_was_made_is_counted_even_if_it_is_too_much() -> None:
    admission = Admission(queue_length=0, memory_bytes=100)
    with admission.reservation() as done, admission.reservation() as new:
        done.set(150)
        with pytest.raises(Busy):
            new.reserve(1)
        done.set(0)
        with pytest.raises(Busy):
            new.reserve(101)
        new.reserve(100)


def test_results_get_memory_in_order_and_one_alone_always_does() -> None:
    async def act() -> None:
        admission = Admission(queue_length=9, memory_bytes=0, results_bytes=10)
        order: list[int] = []

        async def one(size_bytes: int, sent: asyncio.Event) -> None:
            with admission.reservation() as memory:
                await memory.wait_for_result(size_bytes)
                order.append(size_bytes)
                assert admission.held_results_bytes <= max(10, size_bytes)
                await sent.wait()

        sent = [asyncio.Event() for _ in range(4)]
        tasks = [asyncio.create_task(one(*each)) for each in zip((99, 4, 7, 1), sent, strict=True)]
        left = asyncio.create_task(one(5, asyncio.Event()))
        for done, expected in ((0, [99]), (1, [99, 4]), (2, [99, 4, 7, 1]), (3, [99, 4, 7, 1])):
            for _ in range(9):
                await asyncio.sleep(0)
            assert order == expected, "4 and 7 are too much, and 1 waits behind 7"
            if done == 1:
                left.cancel()
            with admission.reservation() as memory, pytest.raises(Busy):
                memory.reserve_result(10)
            assert admission.held_results_bytes > 0
            sent[done].set()
        await asyncio.gather(*tasks)
        with pytest.raises(asyncio.CancelledError):
            await left
        assert admission.held_results_bytes == 0

    asyncio.run(act())
