"""compose.yaml and deploy/: they fit the images, the service, and each other."""

import configparser
import re
import shlex
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.deploy.test_images import IMAGES, last
from tests.support.paths import ROOT
from upscaler.cli import options
from upscaler.service import openapi
from upscaler.settings import Settings

DEPLOY: Final = ROOT / "deploy"
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVERS: Final = {name: each for name, each in COMPOSE["services"].items() if "build" in each}
KUBERNETES: Final[dict[str, dict[str, Any]]] = {
    each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
}
POD: Final = KUBERNETES["Deployment"]["spec"]["template"]["spec"]
VARIABLES: Final = {*Settings.variables().values(), "FORWARDED_ALLOW_IPS"}


@pytest.mark.parametrize("file", sorted(ROOT.glob("deploy/**/*.y*ml")), ids=lambda path: path.name)
def test_files_are_valid_yaml(file: Path) -> None:
    assert all(yaml.safe_load_all(file.read_text()))


@pytest.mark.parametrize("name", SERVERS)
def test_compose_builds_images_of_the_dockerfile(name: str) -> None:
    service = SERVERS[name]
    target = service["build"]["target"]
    assert target in IMAGES
    assert service["image"].endswith(f":{target}")
    assert service["ports"] == [f"127.0.0.1:8000:{last('EXPOSE', target)}"]
    assert service["read_only"]
    volume = [f"data:{last('VOLUME', target)}"] if target != "mock" else None
    assert service.get("volumes") == volume


def test_compose_finds_its_files_and_volumes() -> None:
    for name, service in COMPOSE["services"].items():
        for source in (volume.split(":")[0] for volume in service.get("volumes", ())):
            assert (ROOT / source).exists() or source in COMPOSE["volumes"], f"{name}: {source}"


def test_prometheus_and_grafana_find_each_other_and_the_service() -> None:
    (job,) = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    host, port = target.split(":")
    for name, service in SERVERS.items():
        assert service["networks"]["default"]["aliases"] == [host], name
        assert port == last("EXPOSE", service["build"]["target"])
    secret = Path(job["authorization"]["credentials_file"])
    assert COMPOSE["services"]["prometheus"]["secrets"] == [secret.name]
    assert COMPOSE["secrets"][secret.name] == {"environment": "UPSCALER_TOKEN"}
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    used = re.findall(
        '"uid": "(prometheus)"', (DEPLOY / "grafana/dashboards/upscaler.json").read_text()
    )
    assert {*used} == {source["uid"]}


def test_kubernetes_runs_the_image_as_it_is_made() -> None:
    (container,) = POD["containers"]
    image = container["image"].partition(":")[2]
    user, group = map(int, last("USER", image).split(":"))
    security = POD["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"]) == (user, group)
    assert security["fsGroup"] == group
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert [each["mountPath"] for each in container["volumeMounts"]] == [last("VOLUME", image)]
    assert container["ports"][0]["containerPort"] == int(last("EXPOSE", image))
    assert {each["name"] for each in container["env"]} <= VARIABLES
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_probes_ask_for_a_path_of_the_service(probe: str) -> None:
    assert POD["containers"][0][probe]["httpGet"] == {"path": "/livez", "port": "http"}
    assert openapi.LIVEZ


def test_kubernetes_labels_and_names_agree() -> None:
    spec = KUBERNETES["Deployment"]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert labels == spec["selector"]["matchLabels"] == KUBERNETES["Service"]["spec"]["selector"]
    (volume,) = POD["volumes"]
    claim = volume["persistentVolumeClaim"]["claimName"]
    assert claim == KUBERNETES["PersistentVolumeClaim"]["metadata"]["name"]


def test_systemd_starts_a_valid_command() -> None:
    unit = configparser.RawConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(DEPLOY / "octo-upscaler.service")
    program, *words = shlex.split(unit["Service"]["ExecStart"])
    assert program.endswith("/bin/upscaler")
    assert options.parser().parse_args(words).command == "serve"
    assert unit["Service"]["DynamicUser"] == "yes"
    named = re.findall(r"(UPSCALER_\w+)=", unit["Service"]["Environment"])
    assert {*named} <= VARIABLES | {"UPSCALER_DATA"}
    # What is compiled at run time is written and then run.
    assert "MemoryDenyWriteExecute" not in unit["Service"]
