"""A minute of twice the load that the service can bear; benchmarks/soak.py does it for longer."""

from dataclasses import replace

from benchmarks import soak
from tests.children import needs_proc
from upscaler.models import UpscalingModel

AT_LEAST = 0.7
"""In a minute on a machine that others use, too, the capacity itself changes by so much."""


@needs_proc
def test_a_minute_of_overload_loses_nothing() -> None:
    found = soak.soak(60, UpscalingModel.ANIMEVIDEO_V3, 320)
    assert soak.judged(found, AT_LEAST) == [], soak.report(found)
    assert found.answers["good: 200"] > 10
    assert {"hung: head", "hung: body", "hung: answer"} <= found.answers.keys()
    # None of it would go unseen.
    assert soak.judged(replace(found, throughput=0.0), AT_LEAST)
    assert soak.judged(replace(found, peak_bytes=found.bound_bytes + 1), AT_LEAST)
    assert soak.judged(replace(found, faults=["a picture was wrong"]), AT_LEAST)
    assert soak.judged(replace(found, descriptors=(7, 8)), AT_LEAST)
