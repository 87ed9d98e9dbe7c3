"""The command line: `upscaler image`, `serve`, `weights` and `bench`.

torch and FastAPI are imported by the commands that need them, so that the others start at once.
Exit status 0 means that all went well, 1 that something failed, 2 that the command is wrong.
"""

import argparse
import importlib.util
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from tqdm import tqdm

from upscaler import files
from upscaler.api.request import validate_request
from upscaler.api.sizes import output_size
from upscaler.cli import options
from upscaler.errors import FileRefused, InvalidRequest, UpscalerError
from upscaler.files import atomic_write
from upscaler.imaging import comparison, decode, encode
from upscaler.models import LICENCE, MODELS, Model, UpscalingModel
from upscaler.settings import Device, Settings

if TYPE_CHECKING:
    from upscaler.bench.runner import BenchTask
    from upscaler.engine.pool import EnginePool

OPTIONS: Final = {
    "scale": "--scale: ",
    "output_image_width": "--width: ",
    "output_image_height": "--height: ",
}
"""What the contract's fields are called on the command line, before an error's text."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv`, by default the process's own arguments; return its status."""
    # As a SystemExit it lets what is being written be tidied away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    args = options.parser().parse_args(argv)
    command = {"image": _image, "serve": _serve, "weights": _weights, "bench": _bench}[args.command]
    try:
        status = command(args)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "safetensors"):
            raise
        return _fail("this needs the engine: pip install 'octo-upscaler[engine]'", 1)
    except BrokenPipeError:
        # Whoever read our output has seen enough; and Python's own last flush must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (UpscalerError, OSError) as error:
        return _fail(_in_words(error), 2 if isinstance(error, InvalidRequest | FileRefused) else 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    return status


def _image(args: argparse.Namespace) -> int:
    """Upscale pictures; one that fails does not stop the others, and is named at the end."""
    todo = files.plan_files(args.inputs, args.output, args.encoding, before_after=args.before_after)
    fields: dict[str, object] = {
        "scale": args.scale,
        "output_image_width": args.width,
        "output_image_height": args.height,
        "model": args.model,
        "output_image_encoding": todo.encoding,
    }
    if args.scale is args.width is args.height is None:
        fields["scale"] = MODELS[args.model].scale
    validate_request(fields | {"init_image": b"-"})  # tell of a wrong option before reading files

    from upscaler.engine.pool import EnginePool

    engines = EnginePool(_settings(args))
    failures = [_failed(args, refusal.path, refusal) for refusal in todo.refused]
    for job in todo.jobs:
        try:
            result = _upscale(args, job, fields, engines)
        except Exception as error:  # whatever it is, the other pictures are not to suffer
            failures.append(_failed(args, str(job.source), error))
        else:
            _tell(args, result)
    if failures:
        total = len(todo.jobs) + len(todo.refused)
        return _fail("\n  ".join([f"{len(failures)} of {total} failed:", *failures]), 1)
    return 0


def _upscale(
    args: argparse.Namespace, job: files.FileJob, fields: dict[str, object], engines: "EnginePool"
) -> dict[str, Any]:
    """Upscale one picture and say what became of it. Raises whatever goes wrong."""
    started = time.perf_counter()
    request = validate_request(fields | {"init_image": files.read_image_file(job.source)})
    picture = decode.read_header(request.init_image or b"")
    size = output_size(request, picture.size)
    pixels = picture.pixels()
    with _bar(f"fetching {request.model}", "B", quiet=args.quiet) as progress:
        engines.load(request.model, progress)
    file_type = request.output_image_encoding
    with _bar(job.source.name, "row", quiet=args.quiet) as progress:
        strips = engines.upscale(pixels, request.model, size, progress)
        if job.comparison:
            whole = np.concatenate(list(strips))
            sheet = comparison.before_after(pixels, whole)
            _write(job.comparison, encode.encode_strips([sheet], len(sheet), file_type))
            strips = iter([whole])
        _write(job.target, encode.encode_strips(strips, size[1], file_type))
    result: dict[str, Any] = {
        "input": str(job.source),
        "output": str(job.target),
        "width": size[0],
        "height": size[1],
        "model": request.model,
        "seconds": round(time.perf_counter() - started, 3),
    }
    if job.comparison:
        result["before_after"] = str(job.comparison)
    return result


def _tell(args: argparse.Namespace, result: dict[str, Any]) -> None:
    """Print what became of one picture, for people or for programs."""
    if args.json:
        print(json.dumps(result), flush=True)
        return
    print(
        "{input} -> {output} ({width}x{height}, {model}, {seconds:.1f} s)".format_map(result),
        flush=True,
    )
    if "before_after" in result:
        print(f"  before and after: {result['before_after']}", flush=True)


def _failed(args: argparse.Namespace, path: str, error: Exception) -> str:
    """Note the failure of one picture, for programs at once; the text for people is returned."""
    words = _in_words(error)
    if args.json:
        print(json.dumps({"input": path, "error": words}), flush=True)
    return words if isinstance(error, FileRefused) else f"{path}: {words}"


def _serve(args: argparse.Namespace) -> int:
    """Serve the API until interrupted."""
    from upscaler.engine.pool import EnginePool
    from upscaler.service import logs
    from upscaler.service.app import create_app
    from upscaler.service.backend import LocalBackend
    from upscaler.service.server.connection import server

    settings = _settings(args)
    engines = EnginePool(settings)
    if not settings.tokens:
        settings = replace(settings, tokens=(secrets.token_urlsafe(24),))
        print(
            f"UPSCALER_TOKEN is not set. The token of this run is:\n  {settings.tokens[0]}",
            file=sys.stderr,
        )
    logs.to_stderr(settings.tokens)
    running = server(create_app(LocalBackend(engines), settings), args.host, args.port)
    try:
        running.run()
    except SystemExit as stop:  # uvicorn's own way to say that it could not start
        logs.flush()  # its reason comes first
        return 0 if running.started else _fail(f"no server could be started ({stop})", 1)
    return 0


def _weights(args: argparse.Namespace) -> int:
    """List, per model, which weights are used, or fetch those that are asked for."""
    if args.action == "fetch":
        return _fetch(args)
    from upscaler.engine import weights

    folder = Settings.from_environment().weights
    weights.check_folder(folder)
    damaged = False
    for model in MODELS.values():
        print(model.name)
        try:
            found = weights.find(model, folder)
            digest = weights.sha256(found.path) if found else ""
        except (UpscalerError, OSError) as error:
            print(f"  UNUSABLE  {_in_words(error)}\n")
            damaged = True
            continue
        if found is None:
            print(f"  missing   {_advice(model)}\n")
            continue
        verdict = "as published"
        if found.published is None:
            verdict = "your own file, not checked"
        elif digest != found.published.sha256:
            verdict = f"DAMAGED: delete it, then {_advice(model)}"
        print(f"  found     {found.path} ({found.source})")
        print(f"  size      {found.path.stat().st_size / 1e6:.1f} MB")
        print(f"  sha256    {digest} ({verdict})")
        print(
            f"  licence   {LICENCE}{'' if found.published else ', if they are the official ones'}\n"
        )
        damaged = damaged or verdict.startswith("DAMAGED")
    return int(damaged)


def _fetch(args: argparse.Namespace) -> int:
    """Fetch official weights into the cache; a model that fails does not stop the others."""
    from upscaler.engine import weights

    chosen = set(args.models) or {"all"}
    failures = []
    for model in MODELS.values():
        if not chosen & {model.name, "all"}:
            continue
        try:
            with _bar(model.name, "B") as progress:
                print(weights.fetch(model, progress), flush=True)
        except UpscalerError as error:
            failures.append(str(error))
    return _fail("\n".join(failures), 1) if failures else 0


def _bench(args: argparse.Namespace) -> int:
    """Measure, printing each table when it is there; 1 if this engine failed anywhere."""
    from upscaler.bench import plot, report
    from upscaler.bench import runner as bench

    if args.plot and importlib.util.find_spec("matplotlib") is None:
        return _fail("--plot needs matplotlib: pip install 'octo-upscaler[bench]'", 1)
    task = _bench_task(args)
    say = (lambda _: None) if args.quiet else (lambda text: print(text, file=sys.stderr))
    found = bench.begin(task, say)
    print(report.heading(found), end="\n\n", flush=True)
    for case in bench.cases(task, found.peaks, say):
        found.cases.append(case)
        print(report.section(case), end="\n\n", flush=True)
        # After each one: what is measured is not lost if the next is interrupted.
        if args.json:
            _write(args.json, [report.to_json(found).encode()])
        if args.plot:
            _write(args.plot, [plot.png(found)])
    print(report.notes(found))
    own = [row for case in found.cases for row in case.rows if row.name.startswith("upscaler ")]
    return int(any(row.error for row in own))


def _bench_task(args: argparse.Namespace) -> "BenchTask":
    """What to measure, all of it there. Raises UpscalerError or OSError for what cannot be had."""
    from upscaler.bench import contenders, machine
    from upscaler.bench import runner as bench
    from upscaler.engine import weights
    from upscaler.engine.devices import pick_device

    settings = Settings.from_environment()
    device = Device(pick_device(args.device or settings.device).type)
    with (args.picture or bench.photograph()).open("rb") as file:  # be it a pipe
        data = file.read(files.MAX_FILE_BYTES)
    names = args.model or [UpscalingModel.X4_PLUS]
    models = [model for model in MODELS.values() if {model.name, "all"} & set(names)]
    field = contenders.field(
        device,
        bf16=contenders.native_bf16(machine.describe()),
        precisions=args.precision or (),
        peers=args.peer and [peer for peer in args.peer if peer != options.NO_PEER],
    )
    for model in models:
        if weights.find(model, settings.weights) is None:
            with _bar(f"fetching {model.name}", "B", quiet=args.quiet) as progress:
                weights.fetch(model, progress)
    return bench.BenchTask(
        picture=decode.read_header(data).pixels(),
        models=models,
        sizes=args.size or ([512, 1024, 2048] if device is Device.CUDA else [512]),
        device=device,
        contenders=field,
        runs=args.runs,
        memory=args.memory,
    )


def _advice(model: Model) -> str:
    size_mb = model.official.size_bytes / 1e6
    return (
        f"run `upscaler weights fetch {model.name}` ({size_mb:.0f} MB), or put "
        f"{model.official.filename} into a folder and set UPSCALER_WEIGHTS to it"
    )


def _settings(args: argparse.Namespace) -> Settings:
    """The environment's settings, and over them what was given on the command line."""
    given = {name: getattr(args, name) for name in ("device", "precision", "memory")}
    return replace(Settings.from_environment(), **{k: v for k, v in given.items() if v is not None})


def _write(path: Path, parts: Iterable[bytes]) -> None:
    with atomic_write(path) as file:
        file.writelines(parts)


@contextmanager
def _bar(title: str, unit: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, from the first call of what this yields."""
    bars: list[tqdm[Any]] = []

    def move(done: int, total: int) -> None:
        if not bars:
            scaled = unit == "B"
            bars.append(tqdm(desc=title, total=total, unit=unit, unit_scale=scaled, disable=quiet))
        bars[0].update(done - bars[0].n)

    try:
        yield move
    finally:
        for bar in bars:
            bar.close()


def _in_words(error: Exception) -> str:
    """An error in the words of the command line."""
    if isinstance(error, InvalidRequest):
        return "; ".join(f"{OPTIONS.get(str(e.loc[-1]), '')}{e.msg}" for e in error.errors)
    if isinstance(error, UpscalerError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}"


def _fail(text: str, status: int) -> int:
    print(f"upscaler: {text}", file=sys.stderr, flush=True)
    return status
