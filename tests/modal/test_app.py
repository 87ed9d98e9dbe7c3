"""The app as Modal gets it: Modal's own command deploys it to a control plane on this machine."""

import ast
import copy
import fnmatch
import functools
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import modal
import pytest
from packaging.utils import canonicalize_name

import upscaler
from tests.support.modal_control_plane import BUILDER, Plane, Ran, command, control_plane, ran
from tests.support.paths import ROOT
from upscaler.face_models import FaceDetector, needed
from upscaler.modal.config import Deployment
from upscaler.models import MODELS, RELEASES
from upscaler.settings import Device, Settings

WEB, GPU, CHECK = "web", "Upscaler.*", "selfcheck"
HOME = "/root"
"""Where a container has the sources that were shipped to it."""
LOCKS = {WEB: "front", GPU: "gpu", CHECK: "check"}
NEEDED = ("modal_app.py", "locks/front.txt", "locks/gpu.txt")
"""What the app reads besides its package."""
SECRETS = ["st-upscaler-token", "st-upscaler-bucket"]
BUCKETS_KEY = {"upscaler-bucket": {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}}
MAKE_A_TOKEN = "modal secret create upscaler-token UPSCALER_TOKEN="


def deploy(
    plane: Plane,
    chosen: dict[str, str] | None = None,
    folder: Path = ROOT,
    file: str = "modal_app.py",
) -> Ran:
    environment = plane.environment | (chosen or {})
    return ran(command("deploy", file), folder, environment)


@pytest.fixture(scope="module")
def deployed() -> Iterator[Plane]:
    """A plane that the app was deployed to as it is, and the self-check after it."""
    with control_plane() as plane:
        done = deploy(plane)
        assert done.returncode == 0, done.stderr
        assert "/web" in done.stdout, "the URL of the service"
        (published,) = plane.asked("AppPublish")
        assert published.function_ids.keys() == {WEB, GPU}, "and nothing else"
        assert published.class_ids.keys() == {"Upscaler"}
        done = deploy(plane, file="modal_selfcheck.py")
        assert done.returncode == 0, done.stderr
        yield plane


def facts(plane: Plane, name: str) -> dict[str, Any]:
    """What a function asks for, as numbers: the cards in order, and all the others the same."""
    variants = copy.deepcopy(plane.variants(name))
    cards = [each.resources.gpu_config for each in variants]
    assert all(card.count == 1 for card in cards if card.gpu_type)
    for each in variants:
        each.resources.ClearField("gpu_config")
    assert all(each == variants[0] for each in variants)
    function = variants[0]
    scaling = function.autoscaler_settings
    return {
        "gpus": [card.gpu_type for card in cards],
        "cores": function.resources.milli_cpu / 1000,
        "memory": function.resources.memory_mb,
        "seconds": function.timeout_secs,
        "start": function.startup_timeout_secs,
        "window": scaling.scaledown_window,
        "containers": (scaling.min_containers, scaling.max_containers),
        "at once": (function.target_concurrent_inputs, function.max_concurrent_inputs),
        "retries": function.retry_policy.retries,
        "snapshot": function.checkpointing_enabled,
        "options": dict(function.experimental_options),
        "regions": list(function.scheduler_placement.regions),
        "secrets": list(function.secret_ids),
        "asgi": bool(function.webhook_config.type),
        "proxy auth": function.webhook_config.requires_proxy_auth,
    }


ON_GPUS = {
    "gpus": ["L4", "T4", "A10"],
    "cores": 2.0,
    "memory": 8192,
    "seconds": 600,
    "start": 300,
    "window": 60,
    "containers": (0, 4),
    "at once": (1, 2),
    "retries": 0,
    "snapshot": True,
    "options": {},
    "regions": [],
    "secrets": [],
    "asgi": False,
    "proxy auth": False,
}
FRONT = ON_GPUS | {
    "gpus": [""],
    "cores": 1.0,
    "memory": 2048,
    "seconds": 900,
    "start": 900,
    "at once": (56, 100),
    "secrets": ["st-upscaler-token"],
    "asgi": True,
}
SELF_CHECK = ON_GPUS | {
    "memory": 16384,
    "seconds": 3600,
    "start": 3600,
    "window": 2,
    "containers": (0, 1),
    "at once": (0, 0),
    "snapshot": False,
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [(WEB, FRONT), (GPU, ON_GPUS), (CHECK, SELF_CHECK)],
    ids=[WEB, GPU, CHECK],
)
def test_a_function_is_deployed_with_what_it_is_documented_to_have(
    deployed: Plane, name: str, expected: dict[str, Any]
) -> None:
    assert facts(deployed, name) == expected


def test_a_gpu_is_asked_for_two_things(deployed: Plane) -> None:
    assert deployed.variants(GPU)[0].method_definitions.keys() == {"make", "upscale"}


def test_the_secret_is_asked_for_by_name_and_has_to_have_the_token(deployed: Plane) -> None:
    for asked in deployed.asked("SecretGetOrCreate"):
        assert asked.deployment_name == "upscaler-token"
        assert asked.required_keys == ["UPSCALER_TOKEN"]
        assert not asked.env_dict, "the token itself never passes through here"


@pytest.mark.parametrize("document", ["README.md", "docs/MODAL.md"])
def test_the_token_that_is_documented_is_random_and_not_committed(document: str) -> None:
    text = (ROOT / document).read_text()
    made = re.search(
        r"^openssl rand -hex 24 > (\S+)\nmodal secret create upscaler-token "
        r"UPSCALER_TOKEN=\$\(cat (\S+)\)$",
        text,
        re.MULTILINE,
    )
    assert made
    assert made[1] == made[2]
    ignored = (ROOT / ".gitignore").read_text().split()
    assert any(fnmatch.fnmatch(f"/{made[1]}", pattern) for pattern in ignored)


@pytest.mark.slow
def test_what_is_set_by_variables_arrives() -> None:
    chosen = {
        "UPSCALER_SHAPE": "two",
        "UPSCALER_GPU": "L40S, H100!",
        "UPSCALER_MAX_CONTAINERS": "9",
        "UPSCALER_MAX_FRONTS": "2",
        "UPSCALER_SCALEDOWN_WINDOW": "2",
        "UPSCALER_SNAPSHOT": "gpu",
        "UPSCALER_REGION": "eu,us-east",
        "UPSCALER_PROXY_AUTH": "1",
        "UPSCALER_RESULTS_BUCKET": "results",
    }
    assert chosen.keys() == {*Deployment.variables().values()}, "all there are"
    with control_plane() as plane:
        plane.secrets |= BUCKETS_KEY
        done = deploy(plane, chosen)
        assert done.returncode == 0, done.stderr
        both = {"regions": ["eu", "us-east"]}
        cards = {"gpus": ["L40S", "H100!"], "containers": (0, 9)}
        snapshot = {"options": {"enable_gpu_snapshot": "True"}}
        assert facts(plane, GPU) == ON_GPUS | both | cards | snapshot | {"window": 2}
        front = {"proxy auth": True, "containers": (0, 2), "secrets": SECRETS}
        assert facts(plane, WEB) == FRONT | both | front
        assert variables(image(plane, GPU))["UPSCALER_SNAPSHOT"] == "gpu"
        assert variables(image(plane, WEB))["UPSCALER_MAX_CONTAINERS"] == "9", "for its line"
        assert variables(image(plane, WEB))["UPSCALER_RESULTS_BUCKET"] == "results"


@pytest.mark.slow
def test_without_snapshots_there_are_none_and_one_card_is_enough(tmp_path: Path) -> None:
    with control_plane() as plane:
        words = command("deploy", "modal_app.py", alone=False)  # with what is installed here
        chosen = {"UPSCALER_SNAPSHOT": "off", "UPSCALER_GPU": "T4"}
        done = ran(words, ROOT, plane.environment | chosen)
        assert done.returncode == 0, done.stderr
        assert facts(plane, GPU) == ON_GPUS | {"snapshot": False, "gpus": ["T4"]}
        assert facts(plane, WEB) == FRONT | {"snapshot": False}
        assert in_a_container(plane, GPU, tmp_path, ""), "which it has to know as well"


def test_an_invalid_setting_ends_in_one_line_before_any_request() -> None:
    with control_plane() as plane:
        done = deploy(plane, {"UPSCALER_GPU": "L4;T4", "UPSCALER_REGION": ""})
        assert done.returncode == 1
        assert re.fullmatch(r"UPSCALER_GPU: must be .*\n", done.stderr), done.stderr
        assert done.stdout == ""
        assert plane.received == []


@pytest.mark.slow
@pytest.mark.parametrize("secrets", [{}, {"upscaler-token": {"TOKEN"}}], ids=["none", "no key"])
def test_without_the_secret_nothing_is_deployed_and_the_fix_is_printed(
    secrets: dict[str, set[str]],
) -> None:
    with control_plane() as plane:
        plane.secrets = secrets
        done = deploy(plane)
        assert done.returncode == 1
        assert MAKE_A_TOKEN in done.stderr
        assert "Traceback" not in done.stderr
        assert {rpc for rpc, _ in plane.received} == {"SecretGetOrCreate"}


def test_whoever_is_not_logged_in_is_told_so_by_modal_itself() -> None:
    with control_plane() as plane:
        environment = plane.environment
        del environment["MODAL_TOKEN_ID"], environment["MODAL_TOKEN_SECRET"]
        done = ran(command("deploy", "modal_app.py"), ROOT, environment)
        assert done.returncode == 1
        assert "Token missing" in done.stderr
        assert "Traceback" not in done.stderr
        assert plane.received == []


TOO_OLD = """
import runpy, sys

import modal.__main__

sys.version_info, sys.version = (3, 10, 17, "final", 0), "3.10.17 (main)"
sys.argv = ["modal", *sys.argv[1:]]
modal.__main__.main()
"""


@pytest.mark.parametrize("file", ["modal_app.py", "modal_selfcheck.py"])
def test_a_python_that_is_too_old_is_told_in_a_sentence(file: str) -> None:
    environment = {"PATH": os.environ["PATH"], "MODAL_CONFIG_PATH": os.devnull}
    done = ran([sys.executable, "-c", TOO_OLD, "run", file], ROOT, environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        "Python 3.11 or newer is needed here, and this is 3.10.17. .*\n", done.stderr
    )


# Images


def commands(layer: Any) -> str:
    return "\n".join(layer.dockerfile_commands)


def image(plane: Plane, name: str) -> list[Any]:
    return plane.layers(plane.variants(name)[0].image_id)


def index(layers: list[Any], text: str) -> int:
    """Which layer it is that has `text` among its commands: there must be but one."""
    (found,) = [at for at, layer in enumerate(layers) if text in commands(layer)]
    return found


def locks(layers: list[Any]) -> dict[str, bytes]:
    """The locks that the layers install, by their names, in order."""
    return {
        file.filename.removeprefix("/.0_").removesuffix(".txt"): file.data
        for layer in layers
        for file in layer.context_files
    }


def variables(layers: list[Any]) -> dict[str, str]:
    """The settings that the layers make."""
    lines = [line for layer in layers for line in layer.dockerfile_commands]
    words = [word for line in lines if line.startswith("ENV ") for word in shlex.split(line[4:])]
    pairs = dict(word.split("=", 1) for word in words)
    return {name: value for name, value in pairs.items() if name.startswith("UPSCALER_")}


def test_the_front_has_neither_torch_nor_weights(deployed: Plane) -> None:
    layers = image(deployed, WEB)
    for layer in layers:
        assert "torch" not in commands(layer)
        assert "weights" not in commands(layer)
        assert RELEASES not in commands(layer)
    (installed,) = locks(layers).values()
    assert b"torch" not in installed


def test_a_container_can_read_its_settings(deployed: Plane) -> None:
    front = Settings.from_environment(variables(image(deployed, WEB)))
    assert front.deadline_s is not None
    assert front.first_byte_s < front.deadline_s < 150, "before the proxy gives up"
    for name in (GPU, CHECK):
        settings = Settings.from_environment(variables(image(deployed, name)))
        assert settings.weights == Path("/weights")
        assert settings.device == Device.CUDA


def test_all_weights_lie_below_whatever_is_installed_and_are_checked(deployed: Plane) -> None:
    layers = image(deployed, GPU)
    at = index(layers, "/weights/")
    wanted = {model.official: model.releases for model in MODELS.values()}
    wanted |= {model.official: model.releases for model in needed(FaceDetector.RESNET50)}
    for file, releases in wanted.items():
        (fetch,) = [line for line in layers[at].dockerfile_commands if file.filename in line]
        assert f"-o /weights/{file.filename} {releases}/{file.path}" in fetch
        digest = f"{file.sha256}  /weights/{file.filename}"
        assert f"&& echo '{digest}' | sha256sum --check" in fetch
    for layer in layers[: at + 1]:
        assert deployed.context(layer) == {}, "nothing of ours"
        assert locks([layer]) == {}
        assert not any(name in commands(layer) for name in ("torch", "upscaler"))


@pytest.mark.parametrize(("name", "lock"), LOCKS.items())
def test_what_is_installed_is_what_a_lock_has(deployed: Plane, name: str, lock: str) -> None:
    layers = image(deployed, name)
    *_, (installed, data) = locks(layers).items()
    assert (installed, data) == (lock, (ROOT / "locks" / f"{lock}.txt").read_bytes())
    (line,) = [
        line for layer in layers for line in layer.dockerfile_commands if f"/{lock}.txt" in line
        and line.startswith("RUN ")
    ]  # fmt: skip
    assert "/uv pip install " in line
    assert " --require-hashes --no-deps " in line, "nothing but what the lock has"
    for layer in layers:
        assert "uv:latest" not in commands(layer)


def test_images_are_built_by_the_newest_recipe_and_not_by_the_workspaces(deployed: Plane) -> None:
    assert deployed.builders == {modal._image.LATEST_IMAGE_BUILDER_VERSION} != {BUILDER}


def test_the_self_check_has_the_reference_on_top_of_what_the_service_has(deployed: Plane) -> None:
    layers = image(deployed, CHECK)
    *service, settings = image(deployed, GPU)
    assert variables([settings]) == Deployment().environment(serves=False)
    assert layers[: len(service)] == service
    assert list(locks(layers)) == ["gpu", "check"]
    assert "realesrgan==0.3.0" in commands(layers[-1])
    photo = (ROOT / "docs" / "photo.png").read_bytes()
    assert deployed.shipped(CHECK)[f"{HOME}/docs/photo.png"] == photo


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Another checkout, with a source that is not in this one, and leftovers of Python's."""
    folder = tmp_path / "copy"
    shutil.copytree(ROOT / "upscaler", folder / "upscaler")
    for name in NEEDED:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    (folder / "upscaler" / "added.py").write_text("ADDED = True\n")
    for leftover in (folder / "upscaler", folder / "upscaler" / "service" / "playground"):
        (leftover / "__pycache__").mkdir(exist_ok=True)
        (leftover / "__pycache__" / "added.cpython-312.pyc").write_bytes(b"compiled")
    return folder


@pytest.mark.slow
def test_new_sources_rebuild_nothing_and_a_new_lock_not_the_weights(
    deployed: Plane, copied: Path
) -> None:
    with control_plane() as plane:
        assert deploy(plane, folder=copied).returncode == 0
        for name in (WEB, GPU):
            assert f"{HOME}/upscaler/added.py" in plane.shipped(name)
            assert not [path for path in plane.shipped(name) if "pycache" in path]
            assert image(plane, name) == image(deployed, name), "layer by layer, as it was sent"
    with (copied / "locks" / "gpu.txt").open("a") as file:
        file.write("# as of today\n")
    with control_plane() as plane:
        assert deploy(plane, folder=copied).returncode == 0
        layers, before = image(plane, GPU), image(deployed, GPU)
        at = index(before, "/weights/")
        assert layers[: at + 1] == before[: at + 1]
        assert layers[at + 1] != before[at + 1]
        assert image(plane, WEB) == image(deployed, WEB)


# What is shipped


def sources() -> dict[str, bytes]:
    """The package as it is in the checkout, by the paths that it has in a container."""
    package = Path(upscaler.__file__).parent
    found = package.rglob("*")
    files = [path for path in found if path.is_file() and path.parent.name != "__pycache__"]
    return {f"{HOME}/upscaler/{path.relative_to(package)}": path.read_bytes() for path in files}


@pytest.mark.parametrize("name", [WEB, GPU, CHECK])
def test_the_package_is_shipped_whole_and_the_app_with_it(deployed: Plane, name: str) -> None:
    shipped = deployed.shipped(name)
    file = "modal_selfcheck.py" if name == CHECK else "modal_app.py"
    also = {f"{HOME}/docs/photo.png"} if name == CHECK else set()
    assert {path: shipped[path] for path in shipped.keys() - also} == {
        **sources(),
        f"{HOME}/{file}": (ROOT / file).read_bytes(),
    }
    assert {".html", ".css", ".js", ".svg"} < {Path(path).suffix for path in shipped}


IN_A_CONTAINER = """
import importlib.util, json, pathlib, sys

folder, *absent = sys.argv[1:]
sys.modules.update(dict.fromkeys(absent))
sys.meta_path[:] = [each for each in sys.meta_path if "editable" not in str(each)]
sys.path[:] = [each for each in sys.path if not pathlib.Path(each, "upscaler/errors.py").exists()]
assert importlib.util.find_spec("upscaler.errors") is None, "the checkout can be seen"
sys.modules.pop("upscaler", None)
sys.path.insert(0, folder)

from modal._runtime.task_lifecycle_manager import _TaskLifecycleManager

_TaskLifecycleManager._singleton = object()  # what modal.is_local() asks for
import {app} as app
{what}
found = {{name: each.__file__ for name, each in sys.modules.items() if name.startswith("upscaler")}}
found["app"] = app.__file__
sys.stdout.write("\\n" + json.dumps(found))
"""
"""Ends with the files of all our modules that were imported."""

OF_THE_COMMAND = ("click", "rich", "toml", "watchfiles")
"""What Modal brings along to where its command runs, and not into containers."""
BE_THE_FRONT = """
import anyio, httpx

front = app.web.local()

async def ask():
    transport = httpx.ASGITransport(app=front)
    async with httpx.AsyncClient(transport=transport, base_url="http://front") as client:
        for path in ("/livez", "/", "/page/page.js", "/page/page.css", "/page/icon.svg", "/docs"):
            answer = await client.get(path)
            assert answer.status_code == 200, path
            assert answer.content, path
        answer = await client.post("/upscaling", json={})
        assert answer.status_code == 401

anyio.run(ask)
"""
IN_SECRETS = {
    "UPSCALER_TOKEN": "secret",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "its secret",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",  # which nothing has
}
BE_A_GPU = """
app.Worker()
"""
BE_THE_SELF_CHECK = """
from upscaler.bench import contenders, report, runner

assert runner.photograph().is_file()
"""


BE_BOTH = """
import base64, io, sys

import anyio, httpx
from PIL import Image
from upscaler.imaging.resize import resize
from upscaler.settings import Settings

class Engines:
    face_enhance, device_name = False, "cpu"
    load = staticmethod(lambda model: "0" * 64)
    bands = staticmethod(lambda *_: 7)
    warm_up = kernels = staticmethod(lambda: ())
    upscale = staticmethod(lambda pixels, model, size, progress: [resize(pixels, size)])

app.Worker.load_weights = lambda self: None
app.Worker.move_to_device = lambda self: setattr(self, "_engines", Engines())
service = app.Upscaler().web.local()
picture = io.BytesIO()
Image.new("RGB", (256, 256)).save(picture, "PNG")
fields = {"init_image": base64.b64encode(picture.getvalue()).decode(), "scale": 2}

async def ask():
    transport = httpx.ASGITransport(app=service)
    async with httpx.AsyncClient(transport=transport, base_url="http://gpu") as client:
        assert (await client.post("/upscaling", json=fields)).status_code == 401
        client.headers["Authorization"] = "Bearer secret"
        assert (await client.post("/upscaling", json={})).status_code == 422
        answer = await client.post("/upscaling", json=fields)
        assert answer.status_code == 200, answer.text
        made = Image.open(io.BytesIO(base64.b64decode(answer.json()["image_b64"])))
        assert made.size == (512, 512)

anyio.run(ask)
assert Settings.from_environment().deadline_s < 150
"""


@pytest.mark.torch
@pytest.mark.first(1)
@pytest.mark.slow
def test_in_the_single_shape_a_gpu_container_serves_the_api_itself(tmp_path: Path) -> None:
    with control_plane() as plane:
        plane.secrets |= BUCKETS_KEY
        chosen = {"UPSCALER_PROXY_AUTH": "1", "UPSCALER_RESULTS_BUCKET": "results"}
        done = deploy(plane, {"UPSCALER_SHAPE": "single", **chosen})
        assert done.returncode == 0, done.stderr
        (published,) = plane.asked("AppPublish")
        assert published.function_ids.keys() == {GPU}
        alone = {"seconds": 900, "at once": (56, 100), "secrets": SECRETS}
        assert facts(plane, GPU) == ON_GPUS | alone
        methods = plane.variants(GPU)[0].method_definitions
        assert methods.keys() == {"make", "upscale", "web"}
        assert methods["web"].webhook_config.requires_proxy_auth
        pytest.importorskip("torch")
        in_a_container(plane, GPU, tmp_path, BE_BOTH, *OF_THE_COMMAND)


def in_a_container(
    plane: Plane, name: str, folder: Path, what: str, *absent: str
) -> dict[str, str]:
    """The files of the modules that `what` imports where only what was shipped can be imported.

    That, and what the environment of the tests has installed, but for `absent`.
    """
    for path, data in plane.shipped(name).items():
        target = folder / Path(path).relative_to(HOME)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    chosen = variables(image(plane, name))
    script = IN_A_CONTAINER.format(
        app="modal_selfcheck" if name == CHECK else "modal_app", what=what
    )
    done = ran(
        [sys.executable, "-I", "-c", script, str(folder), *absent],
        folder,
        {"PATH": os.environ["PATH"], "MODAL_IS_REMOTE": "1", **IN_SECRETS, **chosen},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    assert all(Path(path).is_relative_to(folder) for path in found.values())
    return found


def imported(path: str) -> set[str]:
    """The packages of others that a module needs to be imported, by what they are installed as."""
    names: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(Path(path).read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
        elif not isinstance(node, ast.FunctionDef):
            nodes += ast.iter_child_nodes(node)
    roots = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"upscaler"}
    return {canonicalize_name(each) for root in roots for each in providers().get(root, [root])}


@functools.cache
def providers() -> Mapping[str, list[str]]:
    """What is to be installed for a name to be imported; it takes a while to find out."""
    return importlib.metadata.packages_distributions()


def provided(plane: Plane, name: str) -> set[str]:
    """What a container has because we asked for it, and Modal's client with its own packages."""
    installed = b"".join(locks(image(plane, name)).values()).decode()
    return {
        "modal",
        "aiohttp",
        "grpclib",
        "yarl",
        *re.findall(r"^([a-z0-9-]+)==", installed, re.MULTILINE),
    }


@pytest.mark.first(1)
def test_the_front_starts_and_answers_with_nothing_but_what_was_shipped(
    deployed: Plane, tmp_path: Path
) -> None:
    engine = "torch", "safetensors", "psutil"
    found = in_a_container(deployed, WEB, tmp_path, BE_THE_FRONT, *engine, *OF_THE_COMMAND)
    assert {
        "upscaler.service.app",
        "upscaler.service.playground",
        "upscaler.modal.backend",
        "upscaler.imaging.decode",
    } < found.keys()
    for path in found.values():
        assert imported(path) <= provided(deployed, WEB), path


@pytest.mark.torch
@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("name", "what"), [(GPU, BE_A_GPU), (CHECK, BE_THE_SELF_CHECK)], ids=[GPU, CHECK]
)
def test_a_gpu_container_finds_all_it_imports_in_what_was_shipped(
    deployed: Plane, tmp_path: Path, name: str, what: str
) -> None:
    pytest.importorskip("torch")
    found = in_a_container(deployed, name, tmp_path, what, *OF_THE_COMMAND)
    assert name == CHECK or {
        "upscaler.modal.worker",
        "upscaler.engine.pool",
        "upscaler.engine.weights",
    } < {*found}
    for path in found.values():
        assert imported(path) <= provided(deployed, name), path


IMPORT_ONLY = """
import socket, sys, warnings

def refuse(*_):
    raise AssertionError("a connection was tried")

socket.socket.connect = socket.socket.connect_ex = refuse
import modal_app
sys.stdout.write(modal_app.app.name)
"""


@pytest.mark.slow
@pytest.mark.first(1)
def test_whoever_only_imports_the_app_needs_no_account_and_no_network(tmp_path: Path) -> None:
    done = ran(
        [sys.executable, "-W", "error", "-c", IMPORT_ONLY],
        ROOT,
        {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MODAL_CONFIG_PATH": os.devnull},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "octo-upscaler", "")
