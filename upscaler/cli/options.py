"""What can be said on the command line."""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

from upscaler.bench.contenders import Peer
from upscaler.formats import ImageEncoding
from upscaler.models import UpscalingModel
from upscaler.settings import Device, Precision, parse_bytes

Word = TypeVar("Word", bound=str)

NO_PEER: Final = "none"
PRECISIONS: Final = tuple(word for word in Precision if word is not Precision.AUTO)
MIN_BENCH_PX: Final = 32
MAX_BENCH_PX: Final = 8192
"""Of a benchmark's picture; where memory ends before that, a contender's row says so."""


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; it leaves the command's name in `command`."""
    whole = argparse.ArgumentParser(
        prog="upscaler", description="Upscale pictures with Real-ESRGAN, here or over HTTP."
    )
    commands = whole.add_subparsers(required=True, dest="command", metavar="COMMAND")
    _add_image(commands.add_parser("image", help="upscale files, folders and globs"))
    _add_serve(commands.add_parser("serve", help="serve the Upscaling API"))
    _add_weights(commands.add_parser("weights", help="list or fetch the models' weights"))
    _add_bench(commands.add_parser("bench", help="measure this engine beside its peers"))
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


def _add_bench(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measure time, memory and fidelity of this engine and of its peers, by turns in one run, "
        "and print a table in Markdown. Options marked + can be given several times."
    )
    add = parser.add_argument
    models, peers = ", ".join(UpscalingModel), ", ".join(Peer)
    precisions = ", ".join(PRECISIONS)
    add("picture", nargs="?", type=Path, metavar="PICTURE",
        help="its middle square is brought to --size; default: a photo of a cat")  # fmt: skip
    add("--model", action="append", type=_model_or_all, metavar="NAME",
        help=f"+ all, or one of: {models}; default: {UpscalingModel.X4_PLUS}")  # fmt: skip
    add("--size", action="append", type=_number(MIN_BENCH_PX, MAX_BENCH_PX), metavar="PX",
        help="+ the input's sides; default: 512, and on cuda 1024 and 2048 too")  # fmt: skip
    add("--device", type=_one_of((Device.AUTO, Device.CPU, Device.CUDA)), metavar="NAME",
        help="auto, cpu or cuda")  # fmt: skip
    add("--precision", action="append", type=_one_of(PRECISIONS), metavar="NAME",
        help=f"+ this engine's, one of: {precisions}; default: all of use here")  # fmt: skip
    add("--peer", action="append", type=_one_of((*Peer, NO_PEER)), metavar="NAME",
        help=f"+ {NO_PEER}, or one of: {peers}; default: all that are installed")  # fmt: skip
    add("--runs", type=_number(1, 1000), default=3, metavar="N", help="default: 3")
    add("--memory", type=_memory, metavar="BYTES", help="this engine's budget, such as 2G or 512M")
    add("--json", type=Path, metavar="FILE", help="write everything there, each run's time too")
    add("--plot", type=Path, metavar="FILE", help="write time and memory over size, as a PNG")
    add("--quiet", action="store_true", help="show no progress")


def _one_of(choices: Iterable[Word]) -> Callable[[str], Word]:
    """An argument's type that takes the words of `choices`, and names them all otherwise."""
    words = {str(choice): choice for choice in choices}

    def word(text: str) -> Word:
        if text not in words:
            raise argparse.ArgumentTypeError(f"choose from {', '.join(words)}")
        return words[text]

    return word


def _number(least: int, most: int) -> Callable[[str], int]:
    """An argument's type that takes whole numbers in that range, both ends included."""

    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"a whole number from {least} to {most}")
        return int(text)

    return number


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
