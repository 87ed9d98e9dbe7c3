"""Batches: several requests at once, each with a result or an error of its own (EXT-6)."""

import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any, Final

import pytest

from contract_tests.judge.events import Event
from contract_tests.judge.run import Run
from contract_tests.requests.images import SampleImage
from contract_tests.requests.request import AUTHORIZATION, Request, upscaling_request
from contract_tests.suite.extensions import (
    UNKNOWN,
    events_in,
    fields_of,
    get,
    image_request,
    require_deleted,
    require_offered,
    require_refused,
    require_token,
)
from contract_tests.target.client import is_url
from contract_tests.target.response import Response

rule = pytest.mark.rule
pytestmark = pytest.mark.strict
BATCHES: Final = "/v1/batches"
LINES: Final = ("Content-Type", "application/jsonl")
CONTENT_TYPE: Final = ("header", "content-type")
BOUNDARY: Final = "a-boundary-of-the-contract-tests"
FORM: Final = ("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
FILE_BEFORE_FIELD: Final = (("files", "a.png", b"x"), ("scale", None, b"1"))


def batch(body: bytes, content_type: tuple[str, str] = LINES) -> Request:
    return Request(body, headers=(AUTHORIZATION, content_type), path=BATCHES)


def form(parts: Sequence[tuple[str, str | None, bytes]]) -> bytes:
    """A form of fields and files: names, names of files, and contents (RFC 7578)."""
    text = b""
    for name, file_name, data in parts:
        file = f'; filename="{file_name}"\r\nContent-Type: image/png' if file_name else ""
        text += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}'.encode()
        text += b"\r\n\r\n" + data + b"\r\n"
    return text + f"--{BOUNDARY}--\r\n".encode()


def require_batches(run: Run) -> None:
    """Raise NotOffered if there are none."""
    require_offered(get(BATCHES, method="POST"), run.send(batch(b"{}", ("Content-Type", "x/y"))))


@rule("EXT-6")
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "multipart/form-data"])
def test_a_batch_of_another_type_is_refused(run: Run, content_type: str) -> None:
    require_batches(run)
    wrong = batch(b"{}", ("Content-Type", content_type))
    require_refused(run, wrong, "EXT-6", 422, CONTENT_TYPE)


@rule("EXT-6")
@pytest.mark.parametrize("body", [b"none", form(FILE_BEFORE_FIELD)], ids=["text", "field last"])
def test_a_form_that_is_none_is_refused(run: Run, body: bytes) -> None:
    require_batches(run)
    require_refused(run, batch(body, FORM), "EXT-6", 422, ("body",))


@rule("EXT-6")
def test_batches_need_a_token_and_an_id(run: Run) -> None:
    require_batches(run)
    require_token(run, batch(b""), "EXT-6")
    for below in ("", "/events", "/zip"):
        unknown = get(f"{BATCHES}/{UNKNOWN}{below}")
        require_refused(run, unknown, "EXT-6", 404)
        require_token(run, unknown, "EXT-6")
    require_refused(run, get(f"{BATCHES}/{UNKNOWN}", method="DELETE"), "EXT-6", 404)


@rule("EXT-6")
@pytest.mark.billable
def test_each_line_has_its_result_or_its_error(run: Run) -> None:
    """Watched, fetched one by one and as a ZIP, and removed."""
    require_batches(run)
    good = [image_request(run, 131), image_request(run, 132, "jpeg")]
    wrong = upscaling_request({"scale": 0}, SampleImage(256, 256, "png", 133, "palette"))
    lines = [json.loads(each.body) for each in (good[0], wrong, good[1])]
    lines[0]["name"] = "first"
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    response = run.send(batch(body), images=len(good))
    made = fields_of(run, response, "EXT-6")
    if response is None:
        return
    urls = check_batch(run, response, made, len(lines))
    events = check_events(run, urls["events_url"], len(lines))
    found = [events[index].data for index in range(len(lines))]
    name = str(found[0].get("name"))
    run.require(name.startswith("first"), "EXT-6", f"the first line's name is {name}, not first")
    check_members(run, found, [good[0], None, good[1]], urls)
    check_zip(run, urls["zip_url"], found)
    require_deleted(run, urls["batch_url"], "EXT-6")
    polls = [f"/v1/requests/{member['response_id']}" for member in found if "error" not in member]
    for gone in (*urls.values(), *polls):
        require_refused(run, get(gone), "EXT-6", 404)


@rule("EXT-6")
@pytest.mark.billable
def test_the_files_of_a_form_have_its_fields_in_common(run: Run) -> None:
    require_batches(run)
    images = [SampleImage(256, 300 + seed, "png", seed, "palette") for seed in (134, 135)]
    fields = {"scale": "1.5", "output_image_encoding": "png"}
    fields |= {"model": run.models[0]} if run.models else {}
    parts = [
        *((name, None, text.encode()) for name, text in fields.items()),
        *(("files", f"photo {image.seed}.png", image.file()) for image in images),
    ]
    response = run.send(batch(form(parts), FORM), images=len(images))
    made = fields_of(run, response, "EXT-6")
    if response is None:
        return
    urls = check_batch(run, response, made, len(images))
    events = check_events(run, urls["events_url"], len(images))
    requests = [upscaling_request(fields, image) for image in images]
    check_members(run, [events[n].data for n in range(len(images))], list(requests), urls)
    require_deleted(run, urls["batch_url"], "EXT-6")


def check_batch(run: Run, response: Response, made: dict[str, Any], total: int) -> dict[str, str]:
    """Require what a batch says of itself, and return its URLs."""
    names = ("batch_url", "events_url", "zip_url")
    urls = {name: made.get(name) for name in names}
    known = made.get("batch_id") and all(map(is_url, urls.values()))
    run.require_or_stop(bool(known), "EXT-6", f"batch_id or a URL is missing: {response.summary}")
    members = made.get("members")
    counted = made.get("total") == total and isinstance(members, list) and len(members) == total
    run.require(counted, "EXT-6", f"it has not {total} members: {response.summary}")
    return {name: str(url) for name, url in urls.items()}


def check_events(run: Run, url: str, total: int) -> dict[int, Event]:
    """Require a result for each member, whoever comes back included; return them by index."""
    response = run.send(get(url))
    assert response is not None, "a plan starts no batch"
    events = events_in(run, response, "EXT-6")
    names = [event.name for event in events]
    indices = [event.data.get("index") for event in events[:-1]]
    whole = names == ["result"] * total + ["completed"] and sorted(map(str, indices)) == [
        str(n) for n in range(total)
    ]
    sentence = f"the events are {names} of {indices}, not a result for each and completed"
    run.require_or_stop(whole, "EXT-6", sentence)
    response = run.send(get(url, ("Last-Event-ID", events[0].id)))
    assert response is not None, "a plan starts no batch"
    again = [each.data.get("index") for each in events_in(run, response, "EXT-6")]
    sentence = "the first result comes again after its Last-Event-ID"
    run.require(indices[0] not in again, "EXT-6", sentence)
    return {int(event.data["index"]): event for event in events[:-1]}


def check_members(
    run: Run, found: list[dict[str, Any]], requests: list[Request | None], urls: dict[str, str]
) -> None:
    """Require of each member the file that was requested, or a 422 where there is no request."""
    counts = fields_of(run, run.send(get(urls["batch_url"])), "EXT-6")
    wanted = {"completed": len(found), "failed": requests.count(None), "pending": 0, "running": 0}
    told = {name: counts.get(name) for name in wanted}
    run.require(told == wanted, "EXT-6", f"the counts are {told}, not {wanted}")
    for member, request in zip(found, requests, strict=True):
        if request is None:
            status = (member.get("error") or {}).get("status")
            run.require(status == 422, "EXT-6", f"the error of a wrong member is {status}, not 422")
            continue
        url = member.get("response_url")
        run.require_or_stop(is_url(url), "EXT-6", f"the response_url of a member is {url}")
        response = run.send(get(str(url)))
        assert response is not None, "a plan starts no batch"
        kind = json.loads(request.body)["output_image_encoding"]
        as_file = request.with_headers(("Accept", f"image/{kind}"))
        run.check_response_to(as_file, response, "EXT-6")


def check_zip(run: Run, url: str, members: list[dict[str, Any]]) -> None:
    """Require a ZIP with the file of each member that has one, by its name, and all errors."""
    response = run.send(get(url))
    assert response is not None, "a plan starts no batch"
    try:
        with zipfile.ZipFile(io.BytesIO(response.body)) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        errors = json.loads(files.pop("errors.json"))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        run.require_or_stop(False, "EXT-6", f"this is no ZIP with an errors.json: {error}")
        return
    good = [member for member in members if "error" not in member]
    run.require(len(errors) == len(members) - len(good), "EXT-6", "errors.json lacks an error")
    run.require(len(files) == len(good), "EXT-6", f"the ZIP has {len(files)} files: {[*files]}")
    for member in good:
        single = run.send(get(str(member["response_url"])))
        assert single is not None, "a plan starts no batch"
        same = any(
            name.endswith(str(member["name"])) and data == single.body
            for name, data in files.items()
        )
        sentence = f"no file in the ZIP has the name and the result of {member['name']}"
        run.require(same, "EXT-6", sentence)
