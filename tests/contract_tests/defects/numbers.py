"""Mistakes with the numbers that ask for a size."""

import math
from typing import Any, Final

from tests.contract_tests.defects.fields import number, reading
from tests.contract_tests.defects.planting import Defect, failing, failing_at_body, refusing
from tests.contract_tests.defects.probes import asking, checking


def at_least(lowest: float, value: Any) -> Any:
    """The value, but none that is lower."""
    return lowest if number(value) and value < lowest else value


def huge(value: object) -> bool:
    """Whether a value is a number of which there is no finite float."""
    try:
        return isinstance(value, float | int | str) and math.isinf(float(value))
    except OverflowError:
        return True
    except ValueError:
        return False


def or_default(value: Any, default: Any) -> Any:
    """A number, or the default for what is none."""
    try:
        float(value)
    except (TypeError, ValueError):
        return default
    return value


NUMBERS: Final = (
    Defect(
        "scale-0-taken",
        "Takes a scale of 0, and makes a picture of one pixel.",
        ("REQ-6",),
        reading("scale", lambda value: 1e-9 if number(value) and value == 0 else value),
        asking(scale=0),
    ),
    Defect(
        "scale-negative-taken",
        "Takes the absolute value of the scale.",
        ("REQ-6",),
        reading("scale", lambda value: abs(value) if number(value) else value),
        asking(scale=-2),
    ),
    Defect(
        "scale-infinite-500",
        "Multiplies by an infinite scale.",
        ("RES-5", "REQ-6"),
        failing(lambda fields: huge(fields.get("scale"))),
        asking(scale="Infinity"),
    ),
    Defect(
        "scale-infinite-taken",
        "Takes an infinite scale for one of 4.",
        ("REQ-6",),
        reading("scale", lambda value: 4 if huge(value) else value),
        checking(scale="1e999"),
    ),
    Defect(
        "scale-below-1-refused",
        "Refuses to make a picture smaller.",
        ("REQ-6",),
        refusing(lambda fields: number(fields.get("scale")) and 0 < fields["scale"] < 1, "scale"),
        asking(scale=0.5),
    ),
    Defect(
        "scale-1-refused",
        "Refuses a scale of exactly 1.",
        ("REQ-6",),
        refusing(lambda fields: number(fields.get("scale")) and fields["scale"] == 1, "scale"),
        asking(scale=1),
    ),
    Defect(
        "scale-above-4-refused",
        "Refuses a scale above 4, since that is as far as the networks go.",
        ("REQ-6",),
        refusing(lambda fields: number(fields.get("scale")) and fields["scale"] > 4, "scale"),
        checking(scale=4.5),
    ),
    Defect(
        "scale-integer",
        "Takes only the whole part of the scale.",
        ("REQ-16", "REQ-6"),
        reading("scale", lambda value: int(value) if number(value) and 1 < value < 99 else value),
        asking(scale=1.5),
    ),
    Defect(
        "scale-text-refused",
        "Refuses a scale that is a number in a string.",
        ("REQ-12",),
        refusing(lambda fields: isinstance(fields.get("scale"), str), "scale", "float_type"),
        asking(scale="1.5"),
    ),
    Defect(
        "scale-unreadable-is-x4",
        "Enlarges four times if it cannot read the scale.",
        ("REQ-12",),
        reading("scale", lambda value: or_default(value, 4)),
        asking(scale="abc"),
    ),
    Defect(
        "scale-comma",
        "Takes a comma in the scale for a decimal point.",
        ("REQ-12",),
        reading("scale", lambda v: v.replace(",", ".") if isinstance(v, str) else v),
        asking(scale="1,5"),
    ),
    Defect(
        "scale-list",
        "Takes the first of a list for the scale.",
        ("REQ-12",),
        reading("scale", lambda value: value[0] if isinstance(value, list) and value else value),
        asking(scale=[2]),
    ),
    Defect(
        "height-0-taken",
        "Takes a height of 0 for one of 1.",
        ("REQ-7",),
        reading("output_image_height", lambda value: 1 if value == 0 else value),
        asking(output_image_height=0),
    ),
    Defect(
        "width-0-taken",
        "Takes a width of 0 for one of 1.",
        ("REQ-7",),
        reading("output_image_width", lambda value: 1 if value == 0 else value),
        asking(output_image_width=0),
    ),
    Defect(
        "height-negative-taken",
        "Takes a negative height for one of 1.",
        ("REQ-7",),
        reading("output_image_height", lambda value: at_least(1, value) if value else value),
        asking(output_image_height=-5),
    ),
    Defect(
        "width-negative-500",
        "Has a fault of its own at a negative width.",
        ("RES-5", "REQ-7"),
        failing(
            lambda fields: (
                number(fields.get("output_image_width")) and fields["output_image_width"] < 0
            )
        ),
        asking(output_image_width=-1),
    ),
    Defect(
        "height-huge-500",
        "Has a fault of its own at a height that no machine's integer holds.",
        ("RES-5", "REQ-7"),
        failing(
            lambda fields: (
                number(fields.get("output_image_height")) and fields["output_image_height"] >= 2**63
            )
        ),
        asking(output_image_height=10**30),
    ),
    Defect(
        "number-of-5000-digits-500",
        "Has a fault of its own at a number of more digits than Python converts.",
        ("RES-5", "REQ-12"),
        failing_at_body(lambda body: b"1" * 4301 in body),
        asking(output_image_width="1" * 5000),
    ),
    Defect(
        "height-fraction-cut",
        "Takes only the whole part of a height with a fraction.",
        ("REQ-12", "REQ-7"),
        reading("output_image_height", lambda value: int(value) if number(value) else value),
        asking(output_image_height=520.5),
    ),
    Defect(
        "height-as-float-refused",
        "Refuses a height that is written with a fraction of zero.",
        ("REQ-12", "REQ-7"),
        refusing(
            lambda fields: isinstance(fields.get("output_image_height"), float),
            "output_image_height",
            "int_type",
        ),
        asking(output_image_height=520.0),
    ),
    Defect(
        "width-text-refused",
        "Refuses a width that is a number in a string.",
        ("REQ-12",),
        refusing(
            lambda fields: isinstance(fields.get("output_image_width"), str),
            "output_image_width",
            "int_type",
        ),
        asking(output_image_width="600"),
    ),
)
