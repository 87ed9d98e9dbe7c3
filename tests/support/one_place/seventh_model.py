"""With a seventh model: the command line, the mock and the service have it, as has the page."""

from mock_server.rules import catalogue
from tests.support.one_place import fields, implementations
from upscaler.cli.options import parser
from upscaler.models import MODELS, UpscalingModel
from upscaler.planning import footprint
from upscaler.settings import Precision

NAME = "real-esrgan-seventh"


def check_command_line() -> None:
    assert parser().parse_args(["image", "a.png", "--model", NAME]).model == NAME
    assert parser().parse_args(["weights", "fetch", NAME]).models == [NAME]
    assert parser().parse_args(["bench", "--model", NAME]).model == [NAME]


def check_plans() -> None:
    """Its bands take more memory than those of a smaller network, and less than a larger one's."""
    names = (UpscalingModel.ANIMEVIDEO_V3, UpscalingModel(NAME), UpscalingModel.X4_V3)
    columns = [footprint(MODELS[name].network, Precision.FP32, "cpu").column for name in names]
    assert columns == sorted(set(columns)), columns


def check_implementations() -> None:
    with implementations() as apis:
        for api in apis.values():
            made = api.post("/upscaling", json=fields(model=NAME, scale=2))
            assert made.status_code == 200, made.text
            assert made.headers["X-Upscaler-Model"] == NAME
            dry = {"X-Upscaler-Dry-Run": "1"}
            plan = api.post("/upscaling", json=fields(model=NAME), headers=dry).json()
            assert (plan["model"], plan["native_scale"]) == (NAME, 4)
            refused = api.post("/upscaling", json=fields(model="no"))
            assert refused.status_code == 422
            assert NAME in refused.text
            schemas = api.get("/openapi.json").json()["components"]["schemas"]
            assert NAME in schemas["UpscalingModel"]["enum"]
            entry = {"name": NAME, "scale": 4, "description": "For tests."}
            assert entry in api.get("/page/config.json").json()["models"]


def check_rules() -> None:
    assert "7 names" in catalogue.RULES[catalogue.ORDER["REQ-8"]].text


if __name__ == "__main__":
    check_command_line()
    check_plans()
    check_implementations()
    check_rules()
