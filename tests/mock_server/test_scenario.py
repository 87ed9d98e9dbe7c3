"""Scenario files: the initial state of a mock, and the errors in wrong files."""

import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mock_server import Mock, PollScript, Scenario
from mock_server.admin import FILTERS
from mock_server.endpoints import ROUTES
from mock_server.faults.fault import FLAGS, HEADER, STATUSES, parse_sequence
from mock_server.scenario import KEYS
from mock_server.serving import cli
from tests.support.mock_servers import SMALL, mock_child, mocked
from tests.support.paths import ROOT
from tests.support.service import decoded
from upscaler.errors import InvalidSetting
from upscaler.settings import FaceEnhance

PROGRESS = ("pending", "running", "fails")
DOCUMENT = ROOT / "docs" / "MOCK.md"
WHOLE = """
tokens = ["one", "two"]
seed = 7
fetch = "real"
rate-limit = "600/min"
face-enhance = "ignore"

[faults]
upscaling = "429x2,ok"
healthcheck = "503"

[random]
"503" = 0.5

[progress]
pending = 1
running = 2
fails = 503
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "scenario.toml"
    path.write_text(WHOLE)
    return path


def statuses(api: httpx.Client, times: int) -> list[int]:
    return [api.post("/upscaling", json=SMALL).status_code for _ in range(times)]


def test_a_scenario_is_the_initial_state(file: Path) -> None:
    mock = Mock(scenario=file)
    assert mock.tokens == ("one", "two")
    assert mock.rate_limit == 600
    assert mock.settings.face_enhance is FaceEnhance.IGNORE
    assert mock.jobs.progress == PollScript(1, 2, 503)
    with mocked(mock) as api:
        for _ in range(2):
            assert api.get("/healthcheck").status_code == 503
            assert statuses(api, 3) == [429, 429, 200]
            drawn = statuses(api, 8)
            assert set(drawn) == {200, 503}
            mock.faults.set("500")
            mock.jobs.progress = PollScript()
            mock.reset()
            assert mock.jobs.progress == PollScript(1, 2, 503)
        assert statuses(api, 11)[3:] == drawn


def test_arguments_override_the_scenario(file: Path) -> None:
    mock = Mock(
        scenario=file,
        tokens=["three"],
        seed=8,
        fetch="made",
        rate_limit=5,
        face_enhance="refuse",
    )
    assert mock.settings.face_enhance is FaceEnhance.REFUSE
    assert (mock.tokens, mock.faults.seed, mock.rate_limit) == (("three",), 8, 5)
    with mocked(mock) as api:
        mock.faults.clear()
        fields = {"init_image_url": "https://pictures.example/a.png", "scale": 1}
        assert decoded(api.post("/upscaling", json=fields)).size == (512, 512)
        assert statuses(api, 5) == [200] * 4 + [429]
        mock.reset()
        mock.faults.clear()
        assert statuses(api, 1) == [200], "whose rate limit begins anew, too"


def test_there_are_no_faults_by_default() -> None:
    mock = Mock()
    assert (mock.tokens, mock.faults.seed, mock.rate_limit) == (("mock-token",), 0, None)
    assert Scenario() == Scenario.parse({})
    with mocked(mock) as api:
        assert statuses(api, 3) == [200] * 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour = 1", "unknown key 'colour'; use one of tokens, seed, fetch, rate-limit"),
        ("tokens = []", "tokens: expected at least one string"),
        ('tokens = "one"', "tokens: expected at least one string"),
        ('tokens = [""]', "tokens: expected at least one string"),
        ("seed = 1.5", "seed: expected an integer"),
        ("seed = true", "seed: expected an integer"),
        ('fetch = "maybe"', "fetch: expected one of made, real"),
        ('rate-limit = "many"', "rate-limit: a rate limit is free, pro, or a number"),
        ("rate-limit = 5", "rate-limit: expected a string"),
        ('face-enhance = "yes"', "face-enhance: expected one of refuse, ignore"),
        ("faults = 1", "faults: expected a table of upscaling, poll, result, healthcheck"),
        ('faults.tea = "ok"', "faults: unknown key 'tea'; use one of upscaling, poll"),
        ("faults.upscaling = 429", "faults.upscaling: expected a string"),
        ('faults.poll = "ok,teapot"', "faults.poll: unknown fault 'teapot'; use one of ok"),
        ("random = 1", 'random: expected a table of probabilities, such as "429" = 0.05'),
        ("random.teapot = 1", "random: unknown fault 'teapot'"),
        ("random.429 = 2", "random: the probability of 429 must be a number from 0 to 1"),
        ("progress.pending = -1", "progress: pending must be a number of polls"),
        ("progress.fails = 200", "progress: fails must be one of 500, 503"),
        ("progress.colour = 1", "progress: unknown key 'colour'; use one of pending, running"),
        ("= 1", "(at line 1, column 1)"),
    ],
)
def test_an_error_names_the_file_and_the_key(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text(text)
    with pytest.raises(InvalidSetting) as caught:
        Scenario.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)
keys = st.sampled_from(sorted(KEYS))


@given(st.dictionaries(keys | st.text(max_size=5), json_values, max_size=3))
def test_any_table_is_a_scenario_or_is_refused(table: dict[str, Any]) -> None:
    with suppress(InvalidSetting, ValueError):
        Scenario.parse(table)


def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidSetting, match="utf-8"):
        Scenario.read(path)


def test_tokens_are_not_in_the_repr() -> None:
    assert "hidden" not in repr(Scenario(tokens=("hidden-token",)))


# The command


def test_the_command_takes_a_scenario(tmp_path: Path, file: Path) -> None:
    options = ("--scenario", str(file), "--token", "three", "--fetch", "made", "--seed", "7")
    with mock_child(tmp_path, *options) as child:
        headers = {"Authorization": "Bearer three"}
        with httpx.Client(base_url=child.url, headers=headers, timeout=60) as api:
            assert statuses(api, 3) == [429, 429, 200]
            drawn = statuses(api, 8)
            fields = {"init_image_url": "https://pictures.example/300x400.png", "scale": 1}
            made = api.post("/upscaling", json=fields, headers={HEADER: "ok"})
            assert decoded(made).size == (300, 400)
            assert len(api.get("/_mock/requests").json()["requests"]) == 12
    with mocked(Mock(scenario=file, tokens=["three"])) as api:
        assert statuses(api, 11)[3:] == drawn, "the same seed, the same faults"


def test_options_override_the_scenario_and_that_the_environment(tmp_path: Path, file: Path) -> None:
    def status(*options: str) -> int:
        environment = {"UPSCALER_FACE_ENHANCE": "refuse"}
        with mock_child(tmp_path, *options, "--token", "t", environment=environment) as child:
            headers = {"Authorization": "Bearer t", HEADER: "ok"}
            fields = SMALL | {"face_enhance": True}
            return httpx.post(f"{child.url}/upscaling", json=fields, headers=headers).status_code

    assert status() == 422
    assert status("--scenario", str(file)) == 200
    assert status("--scenario", str(file), "--face-enhance", "refuse") == 422


@pytest.mark.slow
def test_the_command_takes_the_scenarios_tokens(tmp_path: Path, file: Path) -> None:
    with mock_child(tmp_path, "--no-admin", "--scenario", str(file)) as child:
        assert httpx.get(f"{child.url}/_mock/requests").status_code == 404
        metrics = f"{child.url}/metrics"
        for token, status in (("one", 200), ("two", 200), ("mock-token", 401)):
            answer = httpx.get(metrics, headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == status


def test_a_wrong_scenario_is_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "scenario.toml"
    assert cli.main(["--scenario", str(path)]) == 1
    assert capsys.readouterr().err == f"upscaler-mock: {path}: No such file or directory\n"
    path.write_text("faults.upscaling = 'teapot'")
    assert cli.main(["--scenario", str(path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"upscaler-mock: {path}: faults.upscaling: unknown fault 'teapot'")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--seed", "x"), "argument --seed: a seed is an integer"),
        (("--fetch", "maybe"), "argument --fetch: invalid choice: 'maybe'"),
        (("--scenario", ""), "argument --scenario: expected the name of a file"),
    ],
)
def test_a_wrong_option_is_status_2(
    options: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(options)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


# The document


def test_each_fault_and_route_is_documented() -> None:
    text = DOCUMENT.read_text()
    for word in (*FLAGS, *map(str, STATUSES), *ROUTES, *PROGRESS, *FILTERS, "reset"):
        assert f"`{word}`" in text or f'"{word}"' in text or f"/{word}`" in text, word


def test_the_documented_example_is_a_scenario() -> None:
    example = DOCUMENT.read_text().partition("```toml\n")[2].partition("```")[0]
    scenario = Scenario.parse(tomllib.loads(example))
    assert scenario.faults["upscaling"] == parse_sequence("429x2,ok")
    assert scenario.progress == PollScript(2, 1)
