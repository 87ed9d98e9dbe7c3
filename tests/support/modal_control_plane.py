"""Modal's control plane on this machine, and its containers, for Modal's real client to talk to.

Whatever the client asks is kept. What it deploys is remembered and never built or started: what
containers would do is done here, by callables of the test, with what a container is given and in
the form in which one answers. The protocol is Modal's own affair and may change with any version,
which is why pyproject.toml holds that.
"""

import asyncio
import base64
import hashlib
import itertools
import json
import os
import pickle
import re
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import grpclib.server
import modal
import pytest
from aiohttp import web
from grpclib import GRPCError, Status
from grpclib.protocol import H2Protocol
from modal._serialization import deserialize_data_format, serialize, serialize_data_format
from modal.client import _Client
from modal_proto import api_pb2
from modal_proto.api_grpc import ModalClientBase

from tests.support.paths import ROOT
from tests.support.service import Resizer
from upscaler.api.request import validate_request
from upscaler.api.sizes import Size, output_size
from upscaler.errors import UpscalerError
from upscaler.formats import ImageEncoding
from upscaler.imaging.decode import read_header
from upscaler.modal import bucket
from upscaler.modal.backend import to_payload
from upscaler.modal.payload import CallState, FileResult, ResultPayload, Upload
from upscaler.models import UpscalingModel
from upscaler.service.backend import StageTimer, UpscaleJob, run_job

Ran = subprocess.CompletedProcess[str]

SYNC_BYTES, ASYNC_BYTES = 2 * 2**20, 8 * 2**10
"""How large an answer of a container may be before it becomes a blob."""
DEVICE: Final = "NVIDIA L4"
"""What the containers here say that they work on."""
DAY_S: Final = 24 * 60 * 60
BUILDER: Final = "2024.10"
"""The version of Modal's recipes for images that a workspace has: an old one."""
STATUS: Final = api_pb2.GenericResult
"""How a call can end."""
UNWANTED: Final = re.compile(r"(?i)MODAL_.*|UPSCALER_.*|.*_proxy|FORCE_COLOR|TTY_.*")
"""Variables by which a client would talk to somebody else, or in another way."""
ALONE: Final = """
import runpy, sys

sys.modules.update(dict.fromkeys(sys.argv.pop(1).split()))
runpy.run_module("modal", run_name="__main__", alter_sys=True)
"""
"""Modal's command in a process that cannot import what its first argument names."""
NOT_MODALS: Final = (
    "PIL fastapi h11 httpcore httpx isal mimeparse numpy platformdirs prometheus_client psutil "
    "pybase64 pydantic pydantic_core pyspng pythonjsonlogger safetensors simplejpeg starlette "
    "torch tqdm uvicorn"
)
"""What the product needs and modal does not bring along."""


class Ended(Exception):
    """Raised in place of a container that came to such an end, with an error as it is pickled."""

    def __init__(
        self, status: "api_pb2.GenericResult.GenericStatus.ValueType", why: str, data: bytes = b""
    ) -> None:
        super().__init__(status, why)
        self.result = api_pb2.GenericResult(status=status, exception=why)
        self.data = data


class Call:
    """A call of a method, with any number of inputs, and what came of them so far."""

    def __init__(self, call_id: str, function_id: str, limit_bytes: int) -> None:
        self.id = call_id
        self.function_id = function_id
        self.limit_bytes = limit_bytes
        self.inputs = 0
        self.outputs: list[api_pb2.FunctionGetOutputsItem] = []
        self.working: list[asyncio.Task[None]] = []
        self.changed = asyncio.Condition()


class Plane:
    """What was received, and what is answered.

    `work` has what containers do, by the name of the method or function, `secrets` the keys of each
    secret that there is, and `failing` what an RPC is refused with. `entries` are of the one
    `modal.Dict`, to which containers write how far calls are, unless `writing` is False. With
    `lost_blobs`, what is fetched from the store ends in the middle.
    """

    def __init__(self) -> None:
        self.url = self.blob_url = ""
        self.thread = threading.current_thread()
        self.over = threading.Event()
        self.work: dict[str, Callable[..., Any]] = {}
        self.secrets: dict[str, set[str]] = {"upscaler-token": {"UPSCALER_TOKEN"}}
        self.failing: dict[str, GRPCError] = {}
        self.received: list[tuple[str, Any]] = []
        self.functions: dict[str, Any] = {}
        self.images: dict[str, Any] = {}
        self.builders: set[str] = set()
        self.mounts: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.calls: dict[str, Call] = {}
        self.entries: dict[bytes, bytes] = {}
        self.writing = True
        self.lost_blobs = False
        self._disconnected: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._ids: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)
        self.dict_id = self._new("di")

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process whose client uses this plane and no user's settings."""
        ours = {name: os.environ[name] for name in os.environ if not UNWANTED.fullmatch(name)}
        return ours | {
            "MODAL_SERVER_URL": self.url,
            "MODAL_TOKEN_ID": "ak-nobody",
            "MODAL_TOKEN_SECRET": "as-nothing",
            "MODAL_CONFIG_PATH": os.devnull,
            "COLUMNS": "200",
        }

    def asked(self, rpc: str) -> list[Any]:
        """The requests of that name, in the order of arrival."""
        return [request for name, request in self.received if name == rpc]

    def variants(self, name: str) -> list[Any]:
        """The definitions of a function: one for each card, in order, or one alone."""
        return self.variants_of(self._function_ids[name])

    def variants_of(self, function_id: str) -> list[Any]:
        """The same by the function's id."""
        return [each.function for each in _ranked(self.functions[function_id]).ranked_functions]

    def layers(self, image_id: str) -> list[Any]:
        """An image and all it is built on, the lowest first."""
        image = self.images[image_id]
        below = [layer for base in image.base_images for layer in self.layers(base.image_id)]
        return [*below, image]

    def shipped(self, name: str) -> dict[str, bytes]:
        """The files that are put into a container of that function, by their paths there."""
        return self._files_of(*self.variants(name)[0].mount_ids)

    def context(self, layer: Any) -> dict[str, bytes]:
        """The local files that a layer copies from."""
        return self._files_of(layer.context_mount_id) if layer.context_mount_id else {}

    def end(self) -> None:
        """Close all connections, and respond no more."""
        self.over.set()
        self.thread.join()

    def forget(self, call_id: str) -> None:
        """What becomes of a call's results in the end."""
        self.calls[call_id].outputs.clear()
        self.calls[call_id].inputs = 0

    def _files_of(self, *mount_ids: str) -> dict[str, bytes]:
        return {
            file.filename: self.files[file.sha256_hex]
            for mount_id in mount_ids
            for file in self.mounts[mount_id]
        }

    @property
    def _function_ids(self) -> dict[str, str]:
        return {
            (request.function_data.function_name or request.function.function_name): function_id
            for function_id, request in self.functions.items()
        }

    def _new(self, prefix: str) -> str:
        return f"{prefix}-{next(self._ids[prefix])}"

    # Who is there

    async def auth_token_get(self, _: Any) -> Any:
        claims = base64.urlsafe_b64encode(json.dumps({"exp": time.time() + DAY_S}).encode())
        return api_pb2.AuthTokenGetResponse(token=f"e30.{claims.decode().rstrip('=')}.")

    async def environment_get_or_create(self, _: Any) -> Any:
        settings = api_pb2.EnvironmentSettings(image_builder_version=BUILDER)
        metadata = api_pb2.EnvironmentMetadata(name="main", settings=settings)
        return api_pb2.EnvironmentGetOrCreateResponse(environment_id="en-0", metadata=metadata)

    # What is deployed

    async def app_create(self, _: Any) -> Any:
        return api_pb2.AppCreateResponse(app_id=self._new("ap"), app_page_url=f"{self.url}/app")

    async def app_publish(self, _: Any) -> Any:
        return api_pb2.AppPublishResponse(url=f"{self.url}/app", deployed_at=time.time())

    async def app_get_logs(self, request: Any) -> Any:
        """There are no logs until the app has ended."""
        await self._disconnected[request.app_id].wait()
        return api_pb2.TaskLogsBatch(app_done=True, entry_id="1-0")

    async def app_client_disconnect(self, request: Any) -> None:
        self._disconnected[request.app_id].set()

    async def secret_get_or_create(self, request: Any) -> Any:
        name, keys = request.deployment_name, self.secrets.get(request.deployment_name)
        if keys is None:
            raise GRPCError(Status.NOT_FOUND, f"Secret '{name}' not found in environment 'main'")
        if missing := set(request.required_keys) - keys:
            raise GRPCError(Status.FAILED_PRECONDITION, f"Secret '{name}' lacks {missing}")
        return api_pb2.SecretGetOrCreateResponse(secret_id=f"st-{name}")

    async def mount_batched_check_existence(self, request: Any) -> Any:
        missing = [each for each in request.sha256_hex_hashes if each not in self.files]
        return api_pb2.MountBatchedCheckExistenceResponse(missing_sha256_hex_hashes=missing)

    async def mount_put_file(self, request: Any) -> Any:
        if request.WhichOneof("data_oneof"):
            blob = self.blobs.get(request.data_blob_id, b"")
            self.files[request.sha256_hex] = blob or request.data
        return api_pb2.MountPutFileResponse(exists=request.sha256_hex in self.files)

    async def mount_get_or_create(self, request: Any) -> Any:
        """The id is of what is in it; those that Modal provides itself have a name and no files."""
        mount_id = f"mo-{_digest(request.deployment_name, *sorted(map(str, request.files)))}"
        self.mounts[mount_id] = request.files
        known = api_pb2.MountHandleMetadata(content_checksum_sha256_hex="0" * 64)
        return api_pb2.MountGetOrCreateResponse(mount_id=mount_id, handle_metadata=known)

    async def image_get_or_create(self, request: Any) -> Any:
        """The id is of the definition, as with Modal, which builds nothing twice."""
        image_id = f"im-{_digest(request.image.SerializeToString(deterministic=True))}"
        self.images[image_id] = request.image
        self.builders.add(request.builder_version)
        return api_pb2.ImageGetOrCreateResponse(image_id=image_id)

    async def image_join_streaming(self, _: Any) -> Any:
        python = ".".join(map(str, sys.version_info[:3]))
        return api_pb2.ImageJoinStreamingResponse(
            result=api_pb2.GenericResult(status=STATUS.GENERIC_STATUS_SUCCESS),
            metadata=api_pb2.ImageMetadata(
                image_builder_version=max(self.builders), python_version_info=f"Python {python}"
            ),
            eof=True,
        )

    async def function_precreate(self, request: Any) -> Any:
        function_id = self._new("fu")
        return api_pb2.FunctionPrecreateResponse(
            function_id=function_id, handle_metadata=_handle(request, self.url)
        )

    async def function_create(self, request: Any) -> Any:
        function_id = request.existing_function_id or self._new("fu")
        self.functions[function_id] = request
        return api_pb2.FunctionCreateResponse(
            function_id=function_id,
            function=request.function,
            function_data=_ranked(request),
            handle_metadata=self._metadata(function_id),
        )

    async def class_create(self, _: Any) -> Any:
        return api_pb2.ClassCreateResponse(class_id=self._new("cs"))

    async def class_get(self, request: Any) -> Any:
        if f"{request.object_tag}.*" not in self._function_ids:
            raise GRPCError(Status.NOT_FOUND, f"no app has a class {request.object_tag}")
        return api_pb2.ClassGetResponse(class_id=self._new("cs"))

    async def function_get(self, request: Any) -> Any:
        function_id = self._function_ids[request.object_tag]
        return api_pb2.FunctionGetResponse(
            function_id=function_id,
            function=_ranked(self.functions[function_id]),
            handle_metadata=self._metadata(function_id),
        )

    def _metadata(self, function_id: str) -> Any:
        request = self.functions[function_id]
        return _handle(
            request.function_data if request.HasField("function_data") else request.function,
            self.url,
        )

    # What is called

    async def function_map(self, request: Any) -> Any:
        kind = request.function_call_invocation_type
        at_once = kind != api_pb2.FUNCTION_CALL_INVOCATION_TYPE_ASYNC
        call_id = self._new("fc")
        call = Call(call_id, request.function_id, SYNC_BYTES if at_once else ASYNC_BYTES)
        self.calls[call_id] = call
        return api_pb2.FunctionMapResponse(
            function_call_id=call_id,
            function_call_jwt=call_id,
            pipelined_inputs=self._taken(call, request.pipelined_inputs),
            max_inputs_outstanding=1000,
            sync_client_retries_enabled=True,
        )

    async def function_put_inputs(self, request: Any) -> Any:
        taken = self._taken(self._call(request.function_call_id), request.inputs)
        return api_pb2.FunctionPutInputsResponse(inputs=taken)

    async def function_get_outputs(self, request: Any) -> Any:
        """What there is after the last that was told of, waiting for as long as the client does."""
        call = self._call(request.function_call_id)
        told = int(request.last_entry_id.partition("-")[0])

        def news() -> bool:
            return len(call.outputs) > told

        async with call.changed:
            if not news() and call.inputs > len(call.outputs):
                with suppress(TimeoutError):
                    async with asyncio.timeout(request.timeout):
                        await call.changed.wait_for(news)
        return api_pb2.FunctionGetOutputsResponse(
            outputs=call.outputs[told:],
            num_unfinished_inputs=call.inputs - len(call.outputs),
            last_entry_id=f"{len(call.outputs)}-0",
        )

    async def blob_create(self, _: Any) -> Any:
        blob_id = self._new("bl")
        urls = api_pb2.UploadUrlList(items=[f"{self.blob_url}/{blob_id}"])
        return api_pb2.BlobCreateResponse(blob_ids=[blob_id], upload_urls=urls)

    async def blob_get(self, request: Any) -> Any:
        return api_pb2.BlobGetResponse(download_url=f"{self.blob_url}/{request.blob_id}")

    async def function_call_cancel(self, request: Any) -> None:
        call = self._call(request.function_call_id)
        for working in call.working:
            working.cancel()

    async def dict_get_or_create(self, request: Any) -> Any:
        metadata = api_pb2.DictMetadata(name=request.deployment_name)
        return api_pb2.DictGetOrCreateResponse(dict_id=self.dict_id, metadata=metadata)

    async def dict_update(self, request: Any) -> Any:
        self._check_dict(request.dict_id)
        given = {entry.key: entry.value for entry in request.updates}
        if request.if_not_exists and given.keys() & self.entries.keys():
            return api_pb2.DictUpdateResponse(created=False)
        self.entries |= given
        return api_pb2.DictUpdateResponse(created=True)

    async def dict_contents(self, request: Any) -> list[Any]:
        self._check_dict(request.dict_id)
        return [api_pb2.DictEntry(key=key, value=self.entries[key]) for key in self.entries]

    async def dict_get(self, request: Any) -> Any:
        self._check_dict(request.dict_id)
        value = self.entries.get(request.key)
        return api_pb2.DictGetResponse(found=value is not None, value=value)

    async def dict_pop(self, request: Any) -> Any:
        self._check_dict(request.dict_id)
        value = self.entries.pop(request.key, None)
        return api_pb2.DictPopResponse(found=value is not None, value=value)

    def delete_dict(self) -> None:
        """What becomes of the Dict if somebody deletes it: asked for by name, another is made."""
        self.entries.clear()
        self.dict_id = self._new("di")

    def _check_dict(self, dict_id: str) -> None:
        if dict_id != self.dict_id:
            raise GRPCError(Status.NOT_FOUND, f"no Dict has the id {dict_id}")

    def note(self, call_id: str, made: ResultPayload | None = None, *, completed: bool) -> None:
        """Write how far a call is, as containers do."""
        file_bytes = sum(map(len, made["file"])) if made else 0
        since_s = made["finished_s"] if made else time.time()
        state = CallState(completed=completed, file_bytes=file_bytes, since_s=since_s)
        self.entries[serialize(call_id)] = serialize(state)

    def _call(self, call_id: str) -> Call:
        if call_id not in self.calls:
            raise GRPCError(Status.NOT_FOUND, f"no call has the id {call_id}")
        return self.calls[call_id]

    def _taken(self, call: Call, inputs: Any) -> list[Any]:
        taken = []
        for item in inputs:
            input_id = self._new("in")
            call.inputs += 1
            working = asyncio.create_task(self._work(call, item, input_id))
            call.working.append(working)
            taken.append(
                api_pb2.FunctionPutInputsResponseItem(
                    idx=item.idx, input_id=input_id, input_jwt=input_id
                )
            )
        return taken

    async def _work(self, call: Call, item: Any, input_id: str) -> None:
        """What a container does with one input, in a thread."""
        given = item.input
        data = self.blobs[given.args_blob_id] if given.args_blob_id else given.args
        arguments, keywords = deserialize_data_format(data, given.data_format, None)
        name = given.method_name or self.variants_of(call.function_id)[0].function_name
        writing, value = self.writing and name == "make", None
        if writing:
            self.note(call.id, completed=False)
        try:
            value = await asyncio.to_thread(self.work[name], *arguments, **keywords)
            data = serialize_data_format(value, given.data_format)
            result = api_pb2.GenericResult(status=STATUS.GENERIC_STATUS_SUCCESS)
        except asyncio.CancelledError:
            data, result = b"", api_pb2.GenericResult(status=STATUS.GENERIC_STATUS_TERMINATED)
        except Ended as end:
            writing, data, result = False, end.data, end.result
        except Exception as error:
            data = pickle.dumps(error)
            result = api_pb2.GenericResult(
                status=STATUS.GENERIC_STATUS_FAILURE, exception=repr(error)
            )
        if len(data) > call.limit_bytes:
            result.data_blob_id = self._new("bl")
            self.blobs[result.data_blob_id] = data
        else:
            result.data = data
        if writing:
            self.note(call.id, value, completed=True)
        output = api_pb2.FunctionGetOutputsItem(
            result=result, idx=item.idx, input_id=input_id, data_format=given.data_format
        )
        async with call.changed:
            call.outputs.append(output)
            call.changed.notify_all()

    # What is stored

    async def put_blob(self, request: web.Request) -> web.Response:
        data = self.blobs[request.match_info["id"]] = await request.read()
        return web.Response(headers={"ETag": hashlib.md5(data).hexdigest()})

    async def give_blob(self, request: web.Request) -> web.Response:
        blob = self.blobs[request.match_info["id"]]
        if not self.lost_blobs:
            return web.Response(body=blob)
        response = web.StreamResponse(headers={"Content-Length": str(len(blob))})
        await response.prepare(request)
        await response.write(blob[: len(blob) // 2])
        assert request.transport
        request.transport.close()
        return response  # type: ignore[return-value]


def _digest(*parts: str | bytes) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:22]


def _ranked(request: Any) -> Any:
    """A function with its definitions by rank: the client reads those even of a single one."""
    if request.HasField("function_data"):
        return request.function_data
    only = api_pb2.FunctionData.RankedFunction(function=request.function)
    return api_pb2.FunctionData(ranked_functions=[only])


def _handle(function: Any, url: str) -> Any:
    """What a client is told of a function, or of a method of a class."""
    handle = api_pb2.FunctionHandleMetadata(
        function_name=function.function_name,
        function_type=function.function_type,
        supported_input_formats=function.supported_input_formats,
        supported_output_formats=function.supported_output_formats,
        web_url=f"{url}/web" if function.webhook_config.type else "",
    )
    for name, method in getattr(function, "method_definitions", {}).items():
        told = handle.method_handle_metadata[name]
        told.CopyFrom(_handle(method, url))
        told.is_method, told.use_method_name = True, name
    return handle


def _servicer(plane: Plane) -> ModalClientBase:
    """All RPCs of Modal's: answers of `plane`, where it has a method, and empty replies."""

    def handler(rpc: str) -> Callable[[Any, Any], Awaitable[None]]:
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", rpc).lower()
        answer = getattr(plane, name, None)

        async def handle(servicer: Any, stream: Any) -> None:
            request = await stream.recv_message()
            plane.received.append((rpc, request))
            if rpc in plane.failing:
                raise plane.failing[rpc]
            reply = await answer(request) if answer else None
            known = servicer.known[f"/modal.client.ModalClient/{rpc}"]
            if isinstance(reply, list):
                for each in reply:
                    await stream.send_message(each)
            elif reply is not None or not known.cardinality.server_streaming:
                await stream.send_message(reply or known.reply_type())

        return handle

    rpcs = {rpc: handler(rpc) for rpc in ModalClientBase.__abstractmethods__}
    servicer: Any = type("Servicer", (ModalClientBase,), rpcs)()
    servicer.known = servicer.__mapping__()
    return servicer  # type: ignore[no-any-return]


class _Server(grpclib.server.Server):
    """A server that closes its connections on stopping, instead of waiting for its clients."""

    def __init__(self, servicer: ModalClientBase) -> None:
        super().__init__([servicer])
        self.connections: list[H2Protocol] = []

    @property
    def port(self) -> int:
        assert isinstance(self._server, asyncio.Server)
        return int(self._server.sockets[0].getsockname()[1])

    def _protocol_factory(self) -> H2Protocol:
        self.connections.append(super()._protocol_factory())
        return self.connections[-1]

    def close(self) -> None:
        super().close()
        for each in self.connections:
            each.processor.close()


async def _serve(plane: Plane, started: threading.Event) -> None:
    blobs = web.Application(client_max_size=2**30)
    blobs.router.add_put("/{id}", plane.put_blob)
    blobs.router.add_get("/{id}", plane.give_blob)
    runner = web.AppRunner(blobs, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    plane.blob_url = site.name
    server = _Server(_servicer(plane))
    await server.start("127.0.0.1", 0)
    plane.url = f"http://127.0.0.1:{server.port}"
    started.set()
    while not plane.over.is_set():
        await asyncio.sleep(0.02)
    server.close()
    await server.wait_closed()
    await runner.cleanup()


@contextmanager
def control_plane() -> Iterator[Plane]:
    """A running plane, until the end of the block or a call of `end`."""
    plane, started = Plane(), threading.Event()
    plane.thread = threading.Thread(target=lambda: asyncio.run(_serve(plane, started)))
    plane.thread.start()
    try:
        assert started.wait(10)
        yield plane
    finally:
        plane.end()


def command(*words: str, alone: bool = True) -> list[str]:
    """Modal's command, as it is in an environment with nothing but modal, or in this one."""
    how = ["-c", ALONE, NOT_MODALS] if alone else ["-m", "modal"]
    return [sys.executable, *how, *words]


def ran(words: list[str], folder: Path, environment: dict[str, str]) -> Ran:
    """The result of a process that was run to its end."""
    return subprocess.run(
        words,
        check=False,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


@contextmanager
def client_of(plane: Plane) -> Iterator[None]:
    """Connect Modal's client in this process to `plane` alone."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ.keys() - plane.environment.keys():
            patch.delenv(name)
        for name, value in plane.environment.items():
            patch.setenv(name, value)
        patch.setattr(_Client, "_client_from_env", None)
        with modal.Client.from_env():
            yield


def make(  # noqa: PLR0917  in the order of `backend.arguments`
    source: bytes,
    model: str,
    size: Size,
    encoding: str,
    as_file: bool,
    upload: Upload | None = None,
) -> ResultPayload:
    """What `Worker.make` does, with Lanczos in place of a network."""
    timer = StageTimer()
    with timer.stage("decode"):
        pixels = read_header(source).pixels()
    task = UpscaleJob(source, pixels, UpscalingModel(model), size, ImageEncoding(encoding), as_file)
    result = run_job(Resizer(), task, Resizer().load(task.model), timer)
    return to_payload(result, DEVICE, asyncio.run(bucket.put(result, upload)) if upload else None)


def upscale(key: int, source: bytes, fields: Mapping[str, object]) -> FileResult:
    """What `Worker.upscale` does, with Lanczos in place of a network."""
    outcome: FileResult = {
        "key": key, "error": None, "file": [], "size": (0, 0), "seconds": 0.0, "device": DEVICE,
    }  # fmt: skip
    try:
        request = validate_request({**fields, "init_image": source})
        size = output_size(request, read_header(source).size)
        encoding = request.output_image_encoding
        made = make(source, request.model, size, encoding, as_file=False)
    except UpscalerError as error:
        return {**outcome, "error": str(error)}
    seconds = sum(made["seconds"].values())
    return {**outcome, "file": made["file"], "size": made["size"], "seconds": seconds}


@contextmanager
def app_deployed() -> Iterator[Plane]:
    """A plane that has the app, and that the client of this process talks to."""
    with control_plane() as plane:
        done = ran(command("deploy", "modal_app.py"), ROOT, plane.environment)
        assert done.returncode == 0, done.stderr
        with client_of(plane):
            yield plane


def method(name: str) -> Any:
    """A method of the class that runs on GPUs, as the client knows it from its deployment."""
    return getattr(modal.Cls.from_name("octo-upscaler", "Upscaler")(), name)
