"""`upscaler bench`: compare this engine with its peers."""

import argparse
import importlib.util
import sys
from typing import TYPE_CHECKING

from upscaler import files
from upscaler.cli import options
from upscaler.cli.output import fail, progress_bar
from upscaler.files import atomic_write
from upscaler.imaging import decode
from upscaler.install import install_command
from upscaler.models import MODELS, UpscalingModel
from upscaler.settings import Device, Settings

if TYPE_CHECKING:
    from upscaler.bench.runner import BenchTask


def run(args: argparse.Namespace) -> int:
    """Measure, and print each table when it is complete; return 1 if this engine ever failed."""
    from upscaler.bench import plot, report, runner

    # Checked first: the plot is drawn after what may be hours of measuring.
    if args.plot and importlib.util.find_spec("matplotlib") is None:
        return fail(f"--plot needs matplotlib: {install_command('bench')}", 1)
    task = _task(args)
    log = (lambda _: None) if args.quiet else (lambda text: print(text, file=sys.stderr))
    results = runner.begin(task, log)
    print(report.heading(results), end="\n\n", flush=True)
    for case in runner.cases(task, results.peaks, log):
        results.cases.append(case)
        print(report.section(case), end="\n\n", flush=True)
        # After each case, so that an interruption loses only the case it interrupts.
        if args.json:
            with atomic_write(args.json) as file:
                file.write(report.to_json(results).encode())
        if args.plot:
            with atomic_write(args.plot) as file:
                file.write(plot.png(results))
    print(report.notes(results))
    own = [row for case in results.cases for row in case.rows if row.name.startswith("upscaler ")]
    return int(any(row.error for row in own))


def _task(args: argparse.Namespace) -> "BenchTask":
    """What to measure, with all weights downloaded. Raises UpscalerError or OSError."""
    from upscaler.bench import contenders, machine, runner
    from upscaler.engine import weights
    from upscaler.engine.devices import pick_device

    settings = Settings.from_environment()
    device = Device(pick_device(args.device or settings.device).type)
    # Not read by files.read_image_file, which refuses pipes.
    with (args.image or runner.photograph()).open("rb") as file:
        data = file.read(files.MAX_FILE_BYTES)
    names = args.model or [UpscalingModel.X4_PLUS]
    models = [model for model in MODELS.values() if {model.name, "all"} & set(names)]
    selected = contenders.select(
        device,
        bf16=contenders.native_bf16(machine.describe()),
        precisions=args.precision or (),
        peers=args.peer and [peer for peer in args.peer if peer != options.NO_PEER],
    )
    # Downloaded here, where progress is shown: in a worker it would count as loading time.
    for model in models:
        if weights.find(model, settings.weights) is None:
            with progress_bar(f"fetching {model.name}", "B", quiet=args.quiet) as progress:
                weights.fetch(model, progress)
    return runner.BenchTask(
        image=decode.read_header(data).pixels(),
        models=models,
        sizes=args.size or ([512, 1024, 2048] if device is Device.CUDA else [512]),
        device=device,
        contenders=selected,
        runs=args.runs,
        memory=args.memory,
    )
