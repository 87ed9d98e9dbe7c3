"""The parser of the command line, and the settings that its options override."""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final, NoReturn, TypeVar

from upscaler.bench.contenders import Peer
from upscaler.face_models import FACE_MODELS
from upscaler.formats import FILE_FORMATS, MAX_SIDE_PX, MIN_SIDE_PX, FileFormat, ImageEncoding
from upscaler.models import MODELS, UpscalingModel
from upscaler.settings import (
    Device,
    FaceEnhance,
    Precision,
    Settings,
    parse_bytes,
    parse_device,
    parse_root_path,
)

Parsed = TypeVar("Parsed")
Word = TypeVar("Word", bound=str)

NO_PEER: Final = "none"
MOST_WORKERS: Final = 64
OVERRIDING: Final = ("device", "precision", "memory", "face_enhance", "root_path")
"""The options that are settings, too."""
PRECISIONS: Final = tuple(word for word in Precision if word is not Precision.AUTO)
MIN_BENCH_PX: Final = 32
MAX_BENCH_PX: Final = 8192
"""The largest side of a benchmark's image; a contender without enough memory for it fails."""


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; it stores the command's name in `command`."""
    root = argparse.ArgumentParser(
        prog="upscaler", description="Upscale images with Real-ESRGAN, locally or over HTTP."
    )
    root.add_argument("--version", action=_Version, nargs=0, help="print the version, and exit")
    commands = root.add_subparsers(required=True, dest="command", metavar="COMMAND")
    _add_image(commands.add_parser("image", help="upscale files, folders and globs"))
    _add_serve(commands.add_parser("serve", help="serve the Upscaling API"))
    _add_weights(commands.add_parser("weights", help="list or fetch the models' weights"))
    _add_bench(commands.add_parser("bench", help="compare this engine with its peers"))
    return root


class _Version(argparse.Action):
    """Prints the version, which takes a while to look up."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        print("upscaler", version("octo-upscaler"))
        parser.exit()


def settings_from(args: argparse.Namespace) -> Settings:
    """The environment's settings, overridden by the options of `image` and `serve`."""
    options = {name: getattr(args, name, None) for name in OVERRIDING}
    overrides = {name: value for name, value in options.items() if value is not None}
    return replace(Settings.from_environment(), **overrides)


def fields_from(args: argparse.Namespace) -> dict[str, object]:
    """The fields of a request that `args` say, by default at the model's own scale."""
    sizes = {
        "scale": args.scale,
        "output_image_width": args.width,
        "output_image_height": args.height,
    }
    given = {name: number for name, number in sizes.items() if number is not None}
    return (given or {"scale": MODELS[args.model].scale}) | {"model": args.model}


def _add_image(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Upscale images: PNG, JPEG, WebP, TIFF, BMP, GIF, AVIF, and HEIC and JPEG XL with Pillow's "
        f"plugins. Each side may have {MIN_SIDE_PX} to {MAX_SIDE_PX} pixels, before and after, as "
        "far as memory and disk allow; for long jobs the estimated time and memory are printed "
        "first. The default size is the model's own scale. A result too large for memory waits in "
        "a temporary file beside the output. A result has the name of its image; if a folder has "
        "a.png and a.jpg, the result of a.jpg is a-jpg.png. The same command continues an "
        "interrupted batch: it skips results that exist, are not older than their image and have "
        "the requested size, whatever the model. A command that names one image always makes it."
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT",
        help="an image, a folder of images, a glob, or - for standard input")  # fmt: skip
    add("-o", "--output", metavar="FILE|DIR|-",
        help="a name with a suffix is a file, one that ends with / is a folder, - is standard "
        "output; default: the folder `upscaled`, and for the input - standard output")  # fmt: skip
    add("--recursive", action="store_true",
        help="take the folders in folders too, except hidden ones and links, and keep them in "
        "the output")  # fmt: skip
    add("--again", action="store_true",
        help="repeat results that exist, as for another model")  # fmt: skip
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--scale", type=float, metavar="F", help="factor for both sides, such as 2.5")
    size.add_argument("--width", type=int, metavar="N", help="width of the result in pixels")
    size.add_argument("--height", type=int, metavar="N", help="height of the result in pixels")
    names = ", ".join(UpscalingModel)
    add("--model", type=_one_of(UpscalingModel), default=UpscalingModel.X4_PLUS, metavar="NAME",
        help=f"one of: {names}")  # fmt: skip
    add("--face-enhance", action="store_true", dest="faces",
        help="restore faces by GFPGAN, whose 540 MB are fetched on first use")  # fmt: skip
    add("--face-strength", type=_strength, default=1.0, metavar="F",
        help="how much of a restored face to mix in, 0 to 1; default: 1")  # fmt: skip
    add("--encoding", type=_format, metavar="NAME",
        help=f"one of: {', '.join(FILE_FORMATS)}; default: the one that --output's name says, "
        f"or else {ImageEncoding.PNG}")  # fmt: skip
    add("--before-after", action="store_true", help="also write a comparison with bicubic resizing")
    add("--keep-metadata", action="store_true",
        help="carry over EXIF, with the place if it has one, XMP, and to JPEG IPTC; from PNG, JPEG "
        "and WebP to PNG and JPEG")  # fmt: skip
    add("--json", action="store_true", help="print a JSON object per image")
    add("--quiet", action="store_true", help="show no progress")
    add("--remote", type=_http_url, metavar="URL",
        help="let the service at this URL upscale, PNG, JPEG and WebP within the API's limits "
        "(docs/API.md)")  # fmt: skip
    add("--token", metavar="TOKEN",
        help="what that service accepts; default: UPSCALER_TOKEN, which other users of this "
        "machine cannot see")  # fmt: skip
    _add_engine(parser)


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.description = "Serve the Upscaling API. Tokens come from UPSCALER_TOKEN (a,b,...)."
    parser.add_argument("--host", default="127.0.0.1",
        help="address to listen on; 0.0.0.0 is all of IPv4, for other machines to reach it, best "
        "behind a proxy with TLS; default: 127.0.0.1, for this machine alone")  # fmt: skip
    parser.add_argument(
        "--port", type=_port, default=8000, help="default: 8000; 0 picks a free port"
    )
    parser.add_argument("--root-path", type=_parsed(parse_root_path), metavar="PATH",
        help="what a proxy has before the paths of the service, such as /images, so that poll_url "
        "leads there; default: UPSCALER_ROOT_PATH; UPSCALER_PUBLIC_URL overrides both")  # fmt: skip
    parser.add_argument("--workers", type=_workers, default=1, metavar="N",
        help="serve in N processes, which share the jobs in UPSCALER_DATA; each loads models of "
        "its own, and has its own metrics; default: 1")  # fmt: skip
    parser.add_argument("--face-enhance", type=_one_of(FaceEnhance), metavar="WHAT",
        help="what is done with face_enhance: true if the networks for it cannot be fetched: "
        "refuse or ignore; default: UPSCALER_FACE_ENHANCE, or else refuse")  # fmt: skip
    _add_engine(parser, several="; cuda is all cards; with cuda:0,cuda:1 or cpu,cpu as many images "
        "are upscaled at the same time")  # fmt: skip


def _workers(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:4]) <= MOST_WORKERS):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {MOST_WORKERS}")
    return int(text)


def _add_weights(parser: argparse.ArgumentParser) -> None:
    parser.description = "List the weights of the models."
    parser.set_defaults(action="list")
    actions = parser.add_subparsers(metavar="ACTION")
    fetch = actions.add_parser("fetch", help="download official weights")
    fetch.set_defaults(action="fetch")
    fetch.add_argument("models", nargs="*", type=_weights, metavar="MODEL",
        help="an upscaling model, or all of them, which is the default; faces is what "
        f"face_enhance needs, and one of these alone: {', '.join(FACE_MODELS)}")  # fmt: skip


def _add_bench(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measure time, memory and fidelity of this engine and its peers, taking turns in one run, "
        "and print a Markdown table. Options marked + can be repeated."
    )
    add = parser.add_argument
    models, peers = ", ".join(UpscalingModel), ", ".join(Peer)
    precisions = ", ".join(PRECISIONS)
    add("image", nargs="?", type=Path, metavar="IMAGE",
        help="its middle square is resized to --size; default: a photo of a cat")  # fmt: skip
    add("--model", action="append", type=_model_or_all, metavar="NAME",
        help=f"+ all, or one of: {models}; default: {UpscalingModel.X4_PLUS}")  # fmt: skip
    add("--size", action="append", type=_number(MIN_BENCH_PX, MAX_BENCH_PX), metavar="PX",
        help="+ the input's sides; default: 512, on cuda also 1024 and 2048")  # fmt: skip
    add("--device", type=_one_of((Device.AUTO, Device.CPU, Device.CUDA)), metavar="NAME",
        help="auto, cpu or cuda")  # fmt: skip
    add("--precision", action="append", type=_one_of(PRECISIONS), metavar="NAME",
        help=f"+ this engine's, one of: {precisions}; default: all usable here")  # fmt: skip
    add("--peer", action="append", type=_one_of((*Peer, NO_PEER)), metavar="NAME",
        help=f"+ {NO_PEER}, or one of: {peers}; default: all that are installed")  # fmt: skip
    add("--runs", type=_number(1, 1000), default=3, metavar="N", help="default: 3")
    add(
        "--memory",
        type=_parsed(parse_bytes),
        metavar="BYTES",
        help="this engine's memory limit, such as 2G or 512M",
    )
    add("--json", type=Path, metavar="FILE", help="write all results, with the time of each run")
    add("--plot", type=Path, metavar="FILE", help="plot time and memory over size, as a PNG")
    add("--quiet", action="store_true", help="show no progress")


def _one_of(choices: Iterable[Word]) -> Callable[[str], Word]:
    """An argument type that accepts the words of `choices`; its error message lists them."""
    # With an enum as the type, argparse itself says no more than "invalid ImageEncoding value".
    words = {str(choice): choice for choice in choices}

    def word(text: str) -> Word:
        if text not in words:
            raise argparse.ArgumentTypeError(f"choose from {', '.join(words)}")
        return words[text]

    return word


def _format(text: str) -> FileFormat:
    return FILE_FORMATS[_one_of(FILE_FORMATS)(text)]


def _number(least: int, most: int) -> Callable[[str], int]:
    """An argument type that accepts whole numbers from `least` to `most`, both included."""

    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}")
        return int(text)

    return number


def _model_or_all(text: str) -> str:
    return text if text == "all" else _one_of(UpscalingModel)(text)


def _weights(text: str) -> str:
    names: tuple[str, ...] = ("all", "faces", *UpscalingModel, *FACE_MODELS)
    return _one_of(names)(text)


def _strength(text: str) -> float:
    try:
        strength = float(text)
    except ValueError:
        strength = -1.0
    if not 0 <= strength <= 1:
        raise argparse.ArgumentTypeError("must be a number from 0 to 1")
    return strength


def _parsed(parse: Callable[[str], Parsed]) -> Callable[[str], Parsed]:
    """An argument type that accepts what `parse` does; its error message is the ValueError's."""

    def parsed(text: str) -> Parsed:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parsed


def _http_url(text: str) -> str:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise argparse.ArgumentTypeError("must start with http:// or https://")
    return text


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError("must be a number from 0 to 65535")
    return int(text)


def _add_engine(parser: argparse.ArgumentParser, several: str = "") -> None:
    """Add the options of the engine; `several` says what several devices are for."""
    add = parser.add_argument
    devices, precisions = ", ".join(Device), ", ".join(Precision)
    add("--device", type=_parsed(parse_device), metavar="NAME", help=f"one of: {devices}; or a "
        f"card, such as cuda:1{several}")  # fmt: skip
    add("--precision", type=_one_of(Precision), metavar="NAME", help=f"one of: {precisions}")
    add(
        "--memory",
        type=_parsed(parse_bytes),
        metavar="N",
        help="memory limit for one image, such as 2G",
    )
