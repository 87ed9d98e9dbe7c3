"""Twice the load that the service can bear, for a while; benchmarks/soak.py does it for longer."""

from dataclasses import replace

import pytest

from benchmarks import soak
from tests.support.processes import needs_proc
from upscaler.models import UpscalingModel

pytestmark = [pytest.mark.torch, pytest.mark.alone, pytest.mark.slow]

AT_LEAST = 0.5
"""Of the lower of the two capacities. In so short a time, on a machine that others use too, they
differ by that much themselves; in twenty minutes it is nine tenths of their mean."""


@needs_proc
def test_overload_loses_nothing() -> None:
    found = soak.soak(20, UpscalingModel.ANIMEVIDEO_V3, 256)
    assert soak.judged(found, 0) == [], soak.report(found)
    assert found.throughput > AT_LEAST * min(found.capacity), soak.report(found)
    for kind in ("good", "watched", "told"):
        assert found.answers[f"{kind}: 200"] > 5
    assert {"hung: head", "hung: body", "hung: answer"} <= found.answers.keys()
    # None of it would go unseen.
    assert soak.judged(replace(found, throughput=0.0), 0.9)
    assert soak.judged(replace(found, peak_bytes=found.bound_bytes + 1), 0)
    assert soak.judged(replace(found, faults=["a picture was wrong"]), 0)
    assert soak.judged(replace(found, descriptors=(7, 8)), 0)
