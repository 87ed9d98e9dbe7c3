"""What can come of a request besides a right answer."""

import unittest
from functools import cache


class Failure(AssertionError):
    """A rule that an answer breaks, and a sentence that says how.

    Each rule has a class of its own (see `failure`): to Hypothesis, what is raised by one line is
    one and the same error, unless its class differs.
    """

    def __init__(self, rule: str, sentence: str) -> None:
        super().__init__(rule, sentence)
        self.rule = rule
        self.sentence = sentence

    def __str__(self) -> str:
        return f"{self.rule}: {self.sentence}"


@cache
def _class_of(rule: str) -> type[Failure]:
    return type(f"Violation_{rule.replace('-', '_')}", (Failure,), {})


def failure(rule: str, sentence: str) -> Failure:
    """An error to raise for a rule that an answer breaks."""
    return _class_of(rule)(rule, sentence)


class Undecided(unittest.SkipTest):
    """Nothing more can be learned from a test; Hypothesis lets it pass and tries no other example.

    `outcome` is what a report says of the test, if nothing was found before.
    """

    outcome = "inconclusive"

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class Inconclusive(Undecided):
    """The target was too busy, or failed in a way that says nothing of the contract."""


class BudgetReached(Undecided):
    """Another request could cost more than was allowed."""

    outcome = "budget reached"


class Unreachable(Undecided):
    """Nothing answers at the target's URL."""

    outcome = "unreachable"


class ShrinkBudgetSpent(Undecided):
    """A failure was found, and has been made as small as so many requests can make it."""

    outcome = "failed"
