"""What can be set when the app is deployed."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.paths import ROOT
from upscaler.errors import InvalidSetting
from upscaler.modal import config
from upscaler.modal.config import Deployment, Shape, Snapshot, settings_or_exit

CHOSEN = {
    "UPSCALER_SHAPE": "single",
    "UPSCALER_GPU": "L40S, H100!,B200+",
    "UPSCALER_MAX_CONTAINERS": "12",
    "UPSCALER_MAX_FRONTS": "3",
    "UPSCALER_SCALEDOWN_WINDOW": "120",
    "UPSCALER_SNAPSHOT": "gpu",
    "UPSCALER_REGION": "us-east-1, eu",
    "UPSCALER_PROXY_AUTH": "1",
    "UPSCALER_RESULTS_BUCKET": "my-results.example",
}
WRONG = [
    *[("UPSCALER_GPU", text) for text in (",", "L4;T4", "L4:2", "4L", "L4 T4", "L4!!", "\uff2c4")],
    *[
        ("UPSCALER_MAX_CONTAINERS", text)
        for text in ("0", "1001", "-1", "4.0", "four", "\u096a", "1e2")
    ],
    *[("UPSCALER_SCALEDOWN_WINDOW", text) for text in ("0", "1", "3601", "60s", "1_000", "+60")],
    *[("UPSCALER_SHAPE", text) for text in ("one", "Single", "2")],
    *[("UPSCALER_SNAPSHOT", text) for text in ("CPU", "on", "1", "cpu,gpu")],
    *[("UPSCALER_REGION", text) for text in (",,", "eu west", "eu/west", "-")],
    *[("UPSCALER_PROXY_AUTH", text) for text in ("true", "yes", "2", "on", "01")],
    *[("UPSCALER_RESULTS_BUCKET", text) for text in ("s3://it", "It", "a/b", "it-", "a" * 64)],
]


@pytest.mark.parametrize("environment", [{}, dict.fromkeys(CHOSEN, ""), {"UPSCALER_GPUS": "T4"}])
def test_what_is_not_set_has_its_default(environment: dict[str, str]) -> None:
    settings = Deployment.from_environment(environment)
    assert settings == Deployment()
    assert settings.gpus == ("L4", "T4", "A10")
    assert settings.snapshots == {"enable_memory_snapshot": True, "experimental_options": {}}


def test_every_setting_has_a_variable_of_its_own() -> None:
    assert {*Deployment.variables().values()} == CHOSEN.keys()
    assert Deployment.from_environment(CHOSEN) == Deployment(
        shape=Shape.SINGLE,
        gpus=("L40S", "H100!", "B200+"),
        max_containers=12,
        max_fronts=3,
        window_s=120,
        snapshot=Snapshot.GPU,
        region=("us-east-1", "eu"),
        proxy_auth=True,
        results_bucket="my-results.example",
    )


def test_each_setting_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "MODAL.md").read_text()
    rows = re.findall(r"^\| `(UPSCALER_\w+)` \| `?(.+?)`? \|", text, re.MULTILINE)
    assert [variable for variable, _ in rows] == [*Deployment.variables().values()]
    for variable, default in rows:
        given = "" if default in ("anywhere", "none") else default
        assert Deployment.from_environment({variable: given}) == Deployment()


@pytest.mark.parametrize("variable", CHOSEN)
def test_space_around_a_value_does_not_count(variable: str) -> None:
    spaced = Deployment.from_environment({variable: f" {CHOSEN[variable]}\n"})
    assert spaced == Deployment.from_environment({variable: CHOSEN[variable]}) != Deployment()


@pytest.mark.parametrize(("variable", "text"), WRONG)
def test_a_value_that_cannot_be_is_refused_with_the_variables_name(
    variable: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidSetting, match=f"^{variable}: must be "):
        Deployment.from_environment({variable: text})
    monkeypatch.setenv(variable, text)
    with pytest.raises(SystemExit) as end:
        settings_or_exit()
    assert str(end.value.code).startswith(f"{variable}: "), "so the process ends with status 1"


def test_a_number_of_fronts_is_refused_where_there_are_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UPSCALER_SHAPE", "single")
    assert settings_or_exit().single
    monkeypatch.setenv("UPSCALER_MAX_FRONTS", "5")
    with pytest.raises(SystemExit, match=r"^UPSCALER_MAX_FRONTS: there are no fronts"):
        settings_or_exit()
    monkeypatch.setattr(config, "command", lambda: "run")
    assert not settings_or_exit().single, "`modal run` serves nothing"


@pytest.mark.parametrize(
    ("variable", "least", "most"),
    [("UPSCALER_MAX_CONTAINERS", 1, 1000), ("UPSCALER_SCALEDOWN_WINDOW", 2, 3600)],
)
@given(data=st.data())
def test_a_number_is_taken_if_and_only_if_modal_takes_it(
    variable: str, least: int, most: int, data: st.DataObject
) -> None:
    edges = st.sampled_from([least - 1, least, most, most + 1])
    number = data.draw(st.integers(0, 10**12) | edges)
    if least <= number <= most:
        settings = Deployment.from_environment({variable: str(number)})
        assert number in (settings.max_containers, settings.window_s)
    else:
        with pytest.raises(InvalidSetting, match=variable):
            Deployment.from_environment({variable: str(number)})


names = st.from_regex(r"[A-Z][A-Za-z0-9-]{0,9}[!+]?", fullmatch=True)


@given(st.lists(names, min_size=1), st.sampled_from([",", ", ", " ,", ",,"]))
def test_names_are_taken_as_they_are_and_in_their_order(words: list[str], between: str) -> None:
    settings = Deployment.from_environment({"UPSCALER_GPU": between.join(words)})
    assert settings.gpus == tuple(words)


def outcome(environment: dict[str, str]) -> Deployment | str:
    try:
        return Deployment.from_environment(environment)
    except InvalidSetting as error:
        return str(error)


@given(st.sampled_from(sorted(CHOSEN)), st.text())
def test_any_text_is_a_value_or_refused(variable: str, text: str) -> None:
    told = outcome({variable: text})
    assert isinstance(told, Deployment) or told.startswith(f"{variable}: ")


@pytest.mark.parametrize(
    ("snapshot", "memory", "options"),
    [
        (Snapshot.OFF, False, {}),
        (Snapshot.CPU, True, {}),
        (Snapshot.GPU, True, {"enable_gpu_snapshot": True}),
    ],
)
def test_a_gpus_memory_is_kept_only_where_that_was_asked_for(
    snapshot: Snapshot, memory: bool, options: dict[str, bool]
) -> None:
    assert Deployment(snapshot=snapshot).snapshots == {
        "enable_memory_snapshot": memory,
        "experimental_options": options,
    }
