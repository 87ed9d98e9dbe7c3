"""What Prometheus and Grafana are told to show: metrics that the service has, with their labels."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.paths import ROOT
from tests.support.service import GOOD, Resizer, serving, upscale
from upscaler.settings import KernelUse

DEPLOY: Final = ROOT / "deploy"
ALERTS: Final[list[dict[str, Any]]] = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD: Final[dict[str, Any]] = json.loads(
    (DEPLOY / "grafana" / "dashboards" / "upscaler.json").read_text()
)
METRIC: Final = r"(?:upscaler|process)_\w+|up\b"
OF_PROMETHEUS: Final = {"instance", "job"}
"""Labels that Prometheus adds."""


class OneModel(Resizer):
    """A backend on a GPU whose kernels are refused, so that every metric has a sample."""

    def kernels(self) -> tuple[KernelUse, ...]:
        return (KernelUse("cuda:0", "real-esrgan-x4-plus", own=False, refused=True),)


def queries() -> Iterator[str]:
    for rule in ALERTS:
        yield rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        yield variable["query"]["query"]


@pytest.fixture(scope="module")
def labels() -> dict[str, set[str]]:
    """The labels of each sample of /metrics after a request, by the sample's name."""
    with serving(OneModel()) as api:
        assert upscale(api, **GOOD).status_code == 200
        families = text_string_to_metric_families(api.get("/metrics").text)
        found: defaultdict[str, set[str]] = defaultdict(set, up=set())
        for family in families:
            for sample in family.samples:
                found[sample.name].update(sample.labels)
    return found


def test_queries_name_metrics_that_the_service_has(labels: dict[str, set[str]]) -> None:
    named = {name for query in queries() for name in re.findall(METRIC, query)}
    assert named <= labels.keys()
    # All of our own are shown or watched, but those of which Prometheus makes no use itself.
    own = {name for name in labels if re.match("upscaler_(?!.*_(bucket|created|sum|count)$)", name)}
    assert own <= named


def test_queries_name_labels_that_their_metrics_have(labels: dict[str, set[str]]) -> None:
    for query in queries():
        known = OF_PROMETHEUS.union(*(labels[name] for name in re.findall(METRIC, query)))
        chosen = re.findall(r"[{,] *(\w+)(?:=~|=|!=|!~)", query)
        grouped = [each for by in re.findall(r"by \(([^)]*)\)", query) for each in by.split(", ")]
        assert {*chosen, *grouped} <= known, query


def test_legends_and_annotations_name_labels_that_their_query_leaves(
    labels: dict[str, set[str]],
) -> None:
    texts = [
        (target["expr"], re.findall(r"{{(\w+)}}", target["legendFormat"]))
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    ] + [
        (rule["expr"], re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
        for rule in ALERTS
    ]
    for query, named in texts:
        grouped = re.search(r"by \(([^)]*)\)", query)
        left = (
            {*grouped[1].split(", ")}
            if grouped
            else OF_PROMETHEUS.union(*(labels[name] for name in re.findall(METRIC, query)))
        )
        assert {*named} <= left, query


def test_panels_have_a_place_of_their_own() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len({*places}) == len(places)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)
