"""How a request can end other than with an allowed response: this module imports nothing else.

AssertionError
Failure             the target breaks a rule; each rule has a subclass of its own
unittest.SkipTest
Undecided           nothing more can be learned from the test
Inconclusive      the target was busy, or failed in a way that the contract does not cover
BudgetReached     another request could exceed the budget
TimeUp            the time of the whole run has passed
NotOffered        the target has not what is tested, and need not have it
Unreachable       nothing responds at the target's URL
CannotBegin       what responds there cannot be judged, before anything was tested
ShrinkBudgetSpent a failure was found, and made as small as the limits allow
"""

import unittest
from functools import cache


class Failure(AssertionError):
    """A rule that the target breaks, with a sentence that says how. Create it with `failure`."""

    def __init__(self, rule: str, sentence: str) -> None:
        super().__init__(rule, sentence)
        self.rule = rule
        self.sentence = sentence

    def __str__(self) -> str:
        return f"{self.rule}: {self.sentence}"


@cache
def _class_of(rule: str) -> type[Failure]:
    return type(f"Failure_{rule.replace('-', '_')}", (Failure,), {})


def failure(rule: str, sentence: str) -> Failure:
    """A failure of a class that belongs to the rule.

    Hypothesis tells errors apart by their class and the line that raises them. All failures are
    raised by one line, so with a single class it would report one rule and shrink across rules.
    """
    return _class_of(rule)(rule, sentence)


class Undecided(unittest.SkipTest):
    """Nothing more can be learned from a test.

    It is a SkipTest since Hypothesis lets that pass at once, instead of trying more examples.
    `outcome` is the outcome of the test in the report, if nothing was found before.
    """

    outcome = "inconclusive"

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class Inconclusive(Undecided):
    """The target was too busy, or failed in a way that says nothing about the contract."""


class BudgetReached(Undecided):
    """Another request could cost more than is allowed."""

    outcome = "budget reached"


class TimeUp(Undecided):
    """The run has taken as long as it may."""


class NotOffered(Undecided):
    """The target lacks an extension (EXT-1 to EXT-6), which no implementation needs to have."""

    outcome = "not offered"


class Unreachable(Undecided):
    """Nothing responds at the target's URL."""

    outcome = "unreachable"


class CannotBegin(Undecided):
    """What responds at the URL is not the API, or cannot be asked: the sentence says what to do.

    `outcome` is one of the ends of a run that the report has, each with its own exit status.
    """

    def __init__(self, outcome: str, sentence: str) -> None:
        super().__init__(sentence)
        self.outcome = outcome


class ShrinkBudgetSpent(Undecided):
    """A failure was found, and made as small as the limits on requests allow."""

    outcome = "failed"
