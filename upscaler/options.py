"""What can be said on the command line."""

import argparse
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from upscaler.contract import ImageEncoding
from upscaler.models import UpscalingModel
from upscaler.settings import Device, Precision, parse_bytes


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; it leaves the command's name in `command`."""
    whole = argparse.ArgumentParser(
        prog="upscaler", description="Upscale pictures with Real-ESRGAN, here or over HTTP."
    )
    commands = whole.add_subparsers(required=True, dest="command", metavar="COMMAND")
    _add_image(commands.add_parser("image", help="upscale files, folders and globs"))
    _add_serve(commands.add_parser("serve", help="serve the Upscaling API"))
    _add_weights(commands.add_parser("weights", help="list or fetch the models' weights"))
    return whole


def _add_image(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Upscale pictures (PNG, JPEG, WebP) of 256 to 2048 pixels a side to at most 8192. "
        "Without a size, a picture becomes as large as the model makes it."
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="a picture, a folder of pictures, or a glob")
    add("-o", "--output", type=Path, metavar="FILE|DIR", help="default: the folder `upscaled`")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--scale", type=float, metavar="F", help="how many times longer both sides")
    size.add_argument("--width", type=int, metavar="N", help="width of the result in pixels")
    size.add_argument("--height", type=int, metavar="N", help="height of the result in pixels")
    names = ", ".join(UpscalingModel)
    add("--model", type=_one_of(UpscalingModel), default=UpscalingModel.X4_PLUS, metavar="NAME",
        help=f"one of: {names}")  # fmt: skip
    add("--encoding", type=_one_of(ImageEncoding), metavar="NAME", help="png (default) or jpeg")
    add("--before-after", action="store_true", help="also write a picture of the difference")
    add("--json", action="store_true", help="print a JSON object per picture")
    add("--quiet", action="store_true", help="show no progress")
    _add_engine(parser)


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.description = "Serve the Upscaling API. Tokens come from UPSCALER_TOKEN (a,b,...)."
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1")
    parser.add_argument(
        "--port", type=_port, default=8000, help="default: 8000; 0 takes a free one"
    )
    _add_engine(parser)


def _add_weights(parser: argparse.ArgumentParser) -> None:
    parser.description = "List the weights of the six models."
    parser.set_defaults(action="list")
    actions = parser.add_subparsers(metavar="ACTION")
    fetch = actions.add_parser("fetch", help="download official weights")
    fetch.set_defaults(action="fetch")
    fetch.add_argument(
        "models", nargs="*", type=_model_or_all, metavar="MODEL", help="default: all"
    )


def _one_of(choices: type[StrEnum]) -> Callable[[str], StrEnum]:
    """An argument's type that takes the words of `choices`, and names them all otherwise."""

    def word(text: str) -> StrEnum:
        if text not in list(choices):
            raise argparse.ArgumentTypeError(f"choose from {', '.join(choices)}")
        return choices(text)

    return word


def _model_or_all(text: str) -> str:
    return text if text == "all" else _one_of(UpscalingModel)(text)


def _memory(text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return int(text)


def _add_engine(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    devices, precisions = ", ".join(Device), ", ".join(Precision)
    add("--device", type=_one_of(Device), metavar="NAME", help=f"one of: {devices}")
    add("--precision", type=_one_of(Precision), metavar="NAME", help=f"one of: {precisions}")
    add("--memory", type=_memory, metavar="N", help="what a picture may take, such as 2G")
