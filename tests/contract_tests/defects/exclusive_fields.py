"""Mistakes with the fields of which exactly one is to be given."""

from collections.abc import Callable
from typing import Any, Final

from tests.contract_tests.defects.fields import missing
from tests.contract_tests.defects.planting import (
    Defect,
    Fields,
    Planting,
    changed_fields,
    failing,
    refusing,
)
from tests.contract_tests.defects.probes import SIZES, asking, file, text
from upscaler.api.request import IMAGE_FIELDS

URL: Final = "https://pictures.example.com/300x260.png"

PICTURE: Final = text(file())


def only_first(names: tuple[str, ...]) -> Planting:
    """Of several fields take the first, and do not look at the others."""

    def changed(fields: Fields) -> Fields:
        given = [name for name in names if fields.get(name) is not None]
        return {name: value for name, value in fields.items() if name not in given[1:]}

    return changed_fields(changed)


def counting(given: Callable[[Any], bool], names: tuple[str, ...]) -> Planting:
    """Have another idea of what is given: so read what is not as null."""
    return changed_fields(
        lambda fields: {
            name: None if name in names and not given(value) else value
            for name, value in fields.items()
        }
    )


def null_is_given(name: str, others: tuple[str, ...]) -> Planting:
    """Refuse a null beside another field, as if two were given."""
    return refusing(
        lambda fields: (
            name in fields
            and fields[name] is None
            and any(fields.get(other) is not None for other in others)
        ),
        name,
        "conflicting",
    )


CHOICES: Final = (
    Defect(
        "both-pictures-taken",
        "Takes init_image and does not look at init_image_url beside it.",
        ("REQ-4",),
        only_first(IMAGE_FIELDS),
        asking(init_image=PICTURE, init_image_url=URL),
    ),
    Defect(
        "no-picture-500",
        "Has a fault of its own at a request without a picture.",
        ("RES-5", "REQ-4"),
        failing(lambda fields: not any(name in fields for name in IMAGE_FIELDS)),
        asking(init_image=...),
    ),
    Defect(
        "null-picture-is-given",
        "Takes a null in init_image_url for a second picture.",
        ("REQ-4",),
        null_is_given("init_image_url", ("init_image",)),
        asking(init_image=PICTURE, init_image_url=None),
    ),
    Defect(
        "null-picture-beside-url",
        "Takes a null in init_image for a picture beside the one of the URL.",
        ("REQ-4",),
        null_is_given("init_image", ("init_image_url",)),
        asking(init_image=None, init_image_url=URL),
    ),
    Defect(
        "null-picture-alone-500",
        "Counts a null as a picture, and cannot read it.",
        ("RES-5", "REQ-4"),
        failing(
            lambda fields: fields.get("init_image", 1) is None and "init_image_url" not in fields
        ),
        asking(init_image=None),
    ),
    Defect(
        "empty-picture-is-absent",
        "Takes an empty init_image for none, and the URL beside it.",
        ("REQ-4", "REQ-17"),
        counting(lambda value: value != "", ("init_image",)),
        asking(init_image="", init_image_url=URL),
    ),
    Defect(
        "two-sizes-taken",
        "Takes the scale and does not look at a height or width beside it.",
        ("REQ-5",),
        only_first(SIZES),
        asking(scale=2, output_image_width=400),
    ),
    Defect(
        "height-and-width-taken",
        "Takes the height if both height and width are given.",
        ("REQ-5",),
        only_first(SIZES[1:]),
        asking(output_image_height=520, output_image_width=600),
    ),
    Defect(
        "no-size-is-x4",
        "Enlarges four times if no size is given.",
        ("REQ-5",),
        missing({"scale": 4}, *SIZES),
        asking(scale=...),
    ),
    Defect(
        "null-size-is-given",
        "Takes a null in scale for a second size.",
        ("REQ-5",),
        null_is_given("scale", SIZES[1:]),
        asking(scale=None, output_image_height=520),
    ),
    Defect(
        "null-height-is-given",
        "Takes a null in output_image_height for a second size.",
        ("REQ-5",),
        null_is_given("output_image_height", ("scale", "output_image_width")),
        asking(scale=2, output_image_height=None),
    ),
    Defect(
        "null-size-alone-500",
        "Counts a null as a size, and cannot compute with it.",
        ("RES-5", "REQ-5"),
        failing(
            lambda fields: (
                any(name in fields for name in SIZES)
                and all(fields.get(name) is None for name in SIZES)
            )
        ),
        asking(scale=None),
    ),
    Defect(
        "zero-size-is-absent",
        "Takes a scale of 0 for none, and the height beside it.",
        ("REQ-5", "REQ-6"),
        counting(bool, SIZES),
        asking(scale=0, output_image_height=520),
    ),
)
