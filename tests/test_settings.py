"""Settings from the environment: values, units and errors."""

from decimal import Decimal
from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upscaler.errors import InvalidSetting
from upscaler.face_models import FaceDetector
from upscaler.formats import ImageEncoding
from upscaler.settings import Device, FaceEnhance, Precision, Settings, parse_bytes, parse_device

VARIABLES = {
    "UPSCALER_TOKEN": "t",
    "UPSCALER_WEIGHTS": "/w",
    "UPSCALER_DEVICE": "cpu",
    "UPSCALER_PRECISION": "bf16",
    "UPSCALER_MEMORY": "2G",
    "UPSCALER_DEFAULT_ENCODING": "jpeg",
    "UPSCALER_FACE_ENHANCE": "ignore",
    "UPSCALER_FACE_DETECTOR": "mobilenet0.25",
    "UPSCALER_QUEUE": "3",
    "UPSCALER_QUEUE_MEMORY": "500M",
    "UPSCALER_RESULTS_MEMORY": "2G",
    "UPSCALER_FIRST_BYTE": "30",
    "UPSCALER_DEADLINE": "140.5",
    "UPSCALER_PRICE_PER_SECOND": "0.000222",
    "UPSCALER_FETCH_PORTS": "443, 8443",
    "UPSCALER_FETCH_NETWORKS": "10.1.0.0/16, fd00::/8",
    "UPSCALER_ROOT_PATH": "/images/",
    "UPSCALER_CORS_ORIGINS": "https://a.example, http://localhost:3000",
}


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert settings.tokens == ()
    assert settings.weights is None
    assert settings.device is Device.AUTO
    assert settings.precision is Precision.AUTO
    assert settings.memory is None


@pytest.mark.parametrize("name", VARIABLES)
def test_an_empty_variable_counts_as_not_set(name: str) -> None:
    assert Settings.from_environment({name: ""}) == Settings()


def test_every_variable_sets_its_own_field() -> None:
    assert Settings.from_environment(VARIABLES) == Settings(
        tokens=("t",),
        weights=Path("/w"),
        device=Device.CPU,
        precision=Precision.BF16,
        memory=2 * 2**30,
        default_encoding=ImageEncoding.JPEG,
        face_enhance=FaceEnhance.IGNORE,
        face_detector=FaceDetector.MOBILENET,
        queue_length=3,
        queue_memory=500 * 2**20,
        results_memory=2 * 2**30,
        first_byte_s=30,
        deadline_s=140.5,
        price_per_second=Decimal("0.000222"),
        fetch_ports=(443, 8443),
        fetch_networks=(ip_network("10.1.0.0/16"), ip_network("fd00::/8")),
        root_path="/images",
        cors_origins=("https://a.example", "http://localhost:3000"),
    )


def test_the_environment_of_the_process_is_read_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSCALER_MEMORY", "96M")
    assert Settings.from_environment().memory == 96 * 2**20


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


@pytest.mark.parametrize("name", ["UPSCALER_FIRST_BYTE", "UPSCALER_DEADLINE"])
@pytest.mark.parametrize("value", ["soon", "-1", "1e3", "inf", "nan", "1.", "45 s", "9" * 7, "٤٥"])
def test_seconds_are_plain_numbers(name: str, value: str) -> None:
    with pytest.raises(InvalidSetting, match=f"{name}: must be a number of seconds"):
        Settings.from_environment({name: value})


@pytest.mark.parametrize("value", ["auto", "cpu", "cuda", "mps"])
def test_every_device_can_be_set(value: str) -> None:
    assert Settings.from_environment({"UPSCALER_DEVICE": value}).device == value


@pytest.mark.parametrize("value", ["auto", "fp32", "mixed", "fp16", "bf16"])
def test_every_precision_can_be_set(value: str) -> None:
    assert Settings.from_environment({"UPSCALER_PRECISION": value}).precision == value


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        ("1024", 2**10),
        ("1073741824", 2**30),
        ("3K", 3 * 2**10),
        ("512M", 2**29),
        ("2G", 2**31),
        ("2g", 2**31),
        ("512m", 2**29),
        ("2GB", 2**31),
        ("2GiB", 2**31),
        ("2gib", 2**31),
        ("64B", 64),
        (" 2G ", 2**31),
        ("007M", 7 * 2**20),
    ],
)
def test_memory_is_a_number_of_bytes_or_of_units(text: str, number: int) -> None:
    assert parse_bytes(text) == number
    assert Settings.from_environment({"UPSCALER_MEMORY": text}).memory == number


NO_MEMORY = [
    *("0", "0G", "00", "-1", "-2G", "+2G", "1.5G", "1,5G", "1e3", "0x10", "2_000", "2 G", "G"),
    *("big", "2T", "2GG", "2Gi", "2GBs", "2G2", "inf", "nan", "\u00b2", "\u0663", "2\u212a"),
    "9" * 5000,
]


@pytest.mark.parametrize("text", ["", " ", *NO_MEMORY], ids=lambda text: ascii(text[:9]))
def test_anything_else_is_no_amount_of_memory(text: str) -> None:
    """A superscript two, an Arabic three and a Kelvin sign are not what they look like."""
    with pytest.raises(ValueError, match="such as 2G"):
        parse_bytes(text)


@given(st.integers(1, 10**15 - 1), st.sampled_from(["", "K", "M", "G"]))
def test_units_are_powers_of_1024(number: int, unit: str) -> None:
    assert parse_bytes(f"{number}{unit}") == number * 1024 ** " KMG".index(unit or " ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("UPSCALER_DEFAULT_ENCODING", text) for text in ("jpg", "PNG", "webp", " ")),
        ("UPSCALER_DEVICE", "gpu"),
        ("UPSCALER_DEVICE", "CPU"),
        ("UPSCALER_DEVICE", "cuda:"),
        ("UPSCALER_DEVICE", " "),
        ("UPSCALER_PRECISION", "fp8"),
        ("UPSCALER_PRECISION", "half"),
        *(("UPSCALER_MEMORY", text) for text in NO_MEMORY),
        ("UPSCALER_WEIGHTS", "~nobody-of-that-name/weights"),
        *(("UPSCALER_QUEUE", text) for text in ("-1", "1.5", "10000", "many", "\u0663")),
        *(("UPSCALER_QUEUE_MEMORY", text) for text in ("319M", "1", "0")),
        *(("UPSCALER_RESULTS_MEMORY", text) for text in ("319M", "1", "0")),
        *(("UPSCALER_PRICE_PER_SECOND", text) for text in ("-1", "1e-4", "$1", "nan", "1,5", ".")),
        *(("UPSCALER_FETCH_PORTS", text) for text in ("0", "65536", "80;443", ",", "http")),
        *(("UPSCALER_FETCH_NETWORKS", text) for text in ("10.0.0.1/8", "intranet", "10.0.0.0/33")),
    ],
    ids=lambda text: ascii(text[:16]),
)
def test_a_value_that_cannot_be_is_refused_with_the_name_of_its_variable(
    name: str, value: str
) -> None:
    with pytest.raises(InvalidSetting, match=name):
        Settings.from_environment({name: value})


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("UPSCALER_DEFAULT_ENCODING", ImageEncoding),
        ("UPSCALER_DEVICE", Device),
        ("UPSCALER_PRECISION", Precision),
        ("UPSCALER_FACE_ENHANCE", FaceEnhance),
        ("UPSCALER_FACE_DETECTOR", FaceDetector),
    ],
)
def test_the_refusal_names_the_choices(name: str, choices: type[StrEnum]) -> None:
    with pytest.raises(InvalidSetting) as caught:
        Settings.from_environment({name: "nonsense"})
    assert all(choice.value in str(caught.value) for choice in choices)


@pytest.mark.parametrize("text", [*Device, "cuda:0", "cuda:12", "cuda:1,cuda:0", "cpu,cpu,cpu"])
def test_a_device_is_one_or_several_of_a_kind(text: str) -> None:
    assert parse_device(text) == text
    assert parse_device(f" {text.replace(',', ' , ')} ") == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *((text, "must be one of auto") for text in ("", ",", "cpu,", "cuda:", "cuda:x", "cpu:0")),
        *((text, "must be one of auto") for text in ("cpu,cuda:x", "cuda:01", "cuda:0;cuda:1")),
        *((text, "different cards") for text in ("cuda:0,cuda:0", "cuda,cuda:1", "cuda,cuda")),
        *((text, "different cards") for text in ("cpu,cuda:0", "auto,auto", "mps,mps", "cpu,mps")),
    ],
)
def test_any_other_list_of_devices_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_device(text)
