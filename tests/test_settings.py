from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upscaler.errors import InvalidSetting
from upscaler.settings import DEFAULT_TILE_PX, Device, Precision, Settings

VARIABLES = (
    "UPSCALER_TOKEN",
    "UPSCALER_WEIGHTS",
    "UPSCALER_DEVICE",
    "UPSCALER_PRECISION",
    "UPSCALER_TILE",
)


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert settings.tokens == ()
    assert settings.weights is None
    assert settings.device is Device.AUTO
    assert settings.precision is Precision.AUTO
    assert settings.tile == DEFAULT_TILE_PX == 256


@pytest.mark.parametrize("name", VARIABLES)
def test_an_empty_variable_counts_as_not_set(name: str) -> None:
    assert Settings.from_environment({name: ""}) == Settings()


def test_every_variable_sets_its_own_field() -> None:
    environment = dict(zip(VARIABLES, ("t", "/w", "cpu", "bf16", "0"), strict=True))
    assert Settings.from_environment(environment) == Settings(
        tokens=("t",), weights=Path("/w"), device=Device.CPU, precision=Precision.BF16, tile=0
    )


def test_the_environment_of_the_process_is_read_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSCALER_TILE", "96")
    assert Settings.from_environment().tile == 96


@pytest.mark.parametrize(
    ("value", "tokens"),
    [
        ("one", ("one",)),
        ("one,two", ("one", "two")),
        (" one , two\n", ("one", "two")),
        (",one,, ,two,", ("one", "two")),
        ("two words", ("two words",)),
        (" , ", ()),
    ],
)
def test_tokens_are_split_at_commas_and_stripped(value: str, tokens: tuple[str, ...]) -> None:
    assert Settings.from_environment({"UPSCALER_TOKEN": value}).tokens == tokens


def test_no_token_shows_in_repr_or_str() -> None:
    settings = Settings.from_environment({"UPSCALER_TOKEN": "open-sesame,friend"})
    shown = repr(settings) + str(settings)
    assert "open-sesame" not in shown
    assert "friend" not in shown
    assert "device" in shown


def test_a_tilde_in_the_weights_folder_is_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = Settings.from_environment({"UPSCALER_WEIGHTS": "~/weights"})
    assert settings.weights == tmp_path / "weights"


@pytest.mark.parametrize("value", ["auto", "cpu", "cuda", "mps"])
def test_every_device_can_be_set(value: str) -> None:
    assert Settings.from_environment({"UPSCALER_DEVICE": value}).device == value


@pytest.mark.parametrize("value", ["auto", "fp32", "fp16", "bf16"])
def test_every_precision_can_be_set(value: str) -> None:
    assert Settings.from_environment({"UPSCALER_PRECISION": value}).precision == value


@given(st.integers(0, 10**6))
def test_a_tile_is_any_whole_number_from_0(tile: int) -> None:
    assert Settings.from_environment({"UPSCALER_TILE": str(tile)}).tile == tile


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("UPSCALER_DEVICE", "gpu"),
        ("UPSCALER_DEVICE", "CPU"),
        ("UPSCALER_DEVICE", "cuda:0"),
        ("UPSCALER_DEVICE", " "),
        ("UPSCALER_PRECISION", "fp8"),
        ("UPSCALER_PRECISION", "half"),
        ("UPSCALER_TILE", "-1"),
        ("UPSCALER_TILE", "12.5"),
        ("UPSCALER_TILE", "1e3"),
        ("UPSCALER_TILE", "big"),
        ("UPSCALER_TILE", "256px"),
        ("UPSCALER_TILE", "\u00b2"),  # a superscript two, a digit that int() does not take
        pytest.param("UPSCALER_TILE", "9" * 5000, id="UPSCALER_TILE-more-digits-than-int-takes"),
        ("UPSCALER_WEIGHTS", "~nobody-of-that-name/weights"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_the_name_of_its_variable(
    name: str, value: str
) -> None:
    with pytest.raises(InvalidSetting, match=name):
        Settings.from_environment({name: value})


@pytest.mark.parametrize(
    ("name", "choices"), [("UPSCALER_DEVICE", Device), ("UPSCALER_PRECISION", Precision)]
)
def test_the_refusal_names_the_choices(name: str, choices: type[Device] | type[Precision]) -> None:
    with pytest.raises(InvalidSetting) as caught:
        Settings.from_environment({name: "nonsense"})
    assert all(choice.value in str(caught.value) for choice in choices)
