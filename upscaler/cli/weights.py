"""`upscaler weights`: list or download the models' weights."""

import argparse

from upscaler.cli.output import error_text, fail, progress_bar
from upscaler.errors import UpscalerError
from upscaler.face_models import FACE_MODELS, FaceModel, needed
from upscaler.models import MODELS, Model
from upscaler.settings import Settings


def run(args: argparse.Namespace) -> int:
    """List the weights that each model uses, or fetch those of the given models."""
    return _fetch(args) if args.action == "fetch" else _list()


def _list() -> int:
    """Print where each model's weights are; return 1 if a file is damaged or unreadable."""
    from upscaler.engine import weights

    folder = Settings.from_environment().weights
    weights.check_folder(folder)
    damaged = False
    for model in _every_model():
        print(model.name)
        try:
            found = weights.find(model, folder)
            digest = weights.sha256(found.path) if found else ""
        except (UpscalerError, OSError) as error:
            print(f"  UNUSABLE  {error_text(error)}\n")
            damaged = True
            continue
        if found is None:
            print(f"  missing   {_advice(model)}\n")
            continue
        check = "as published"
        if found.published is None:
            check = "your own file, not checked"
        elif digest != found.published.sha256:
            check = f"DAMAGED: delete it, then {_advice(model)}"
            damaged = True
        licence = model.licence
        licence += "" if found.published else ", if they are the official ones"
        print(f"  found     {found.path} ({found.source})")
        print(f"  size      {found.path.stat().st_size / 1e6:.1f} MB")
        print(f"  sha256    {digest} ({check})")
        print(f"  licence   {licence}\n")
    return int(damaged)


def _fetch(args: argparse.Namespace) -> int:
    """Download official weights into the cache; a model that fails does not stop the others."""
    from upscaler.engine import weights

    names = set(args.models) or {"all"}
    if "all" in names:
        names |= set(MODELS)
    if "faces" in names:
        names |= {model.name for model in needed(Settings.from_environment().face_detector)}
    failures = []
    for model in _every_model():
        if model.name not in names:
            continue
        try:
            with progress_bar(model.name, "B") as progress:
                print(weights.fetch(model, progress), flush=True)
        except UpscalerError as error:
            failures.append(str(error))
    return fail("\n".join(failures), 1) if failures else 0


def _every_model() -> list[Model | FaceModel]:
    return [*MODELS.values(), *FACE_MODELS.values()]


def _advice(model: Model | FaceModel) -> str:
    size_mb = model.official.size_bytes / 1e6
    return (
        f"run `upscaler weights fetch {model.name}` ({size_mb:.0f} MB), or put "
        f"{model.official.filename} into a folder and set UPSCALER_WEIGHTS to it"
    )
