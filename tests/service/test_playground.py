"""The page's files over HTTP; what they do in a browser is tested in playground/."""

import re
from pathlib import Path

import httpx
import pytest

from upscaler.api.limits import MAX_BODY_BYTES, MAX_INPUT_PX, MAX_OUTPUT_PX, MIN_INPUT_PX
from upscaler.api.request import UpscalingRequest
from upscaler.models import MODELS, UpscalingModel
from upscaler.service import playground

PATHS = ["/", "/page/config.json", *(f"/page/{name}" for name in playground.FILES)]
SAMPLE = "sample.jpg"
SOURCES = {
    path.name: path.read_text()
    for path in Path(playground.__file__).parent.glob("*.*")
    if path.name != SAMPLE
}


@pytest.mark.parametrize("path", PATHS)
def test_a_file_comes_with_strict_headers_and_without_a_token(
    anonymous: httpx.Client, path: str
) -> None:
    answer = anonymous.get(path)
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"].split("; ")
    assert policy[0] == "default-src 'none'"
    for sources in ("script-src 'self'", "style-src 'self'", "connect-src 'self'"):
        assert sources in policy
    for nothing in ("base-uri", "form-action", "frame-ancestors"):
        assert f"{nothing} 'none'" in policy
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/page/page.css", "text/css; charset=utf-8"),
        ("/page/page.js", "text/javascript; charset=utf-8"),
        ("/page/icon.svg", "image/svg+xml"),
        ("/page/config.json", "application/json"),
    ],
)
def test_a_file_has_its_media_type(anonymous: httpx.Client, path: str, media_type: str) -> None:
    assert anonymous.get(path).headers["Content-Type"] == media_type


@pytest.mark.parametrize("path", PATHS)
def test_head_tells_what_get_would(anonymous: httpx.Client, path: str) -> None:
    whole, head = anonymous.get(path), anonymous.head(path)
    assert head.status_code == 200
    assert head.content == b""
    for name in ("Content-Length", "Content-Type", "ETag", "Content-Security-Policy"):
        assert head.headers[name] == whole.headers[name]


def test_a_browser_that_has_a_file_is_not_sent_it_again(anonymous: httpx.Client) -> None:
    etag = anonymous.get("/").headers["ETag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}'):
        answer = anonymous.get("/", headers={"If-None-Match": known})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["ETag"] == etag
    assert anonymous.get("/", headers={"If-None-Match": '"other"'}).status_code == 200


def test_no_two_files_have_the_same_tag(anonymous: httpx.Client) -> None:
    assert len({anonymous.get(path).headers["ETag"] for path in PATHS}) == len(PATHS)


def test_every_file_of_the_folder_is_served() -> None:
    """And none is forgotten: a module that is imported but not served breaks the page."""
    assert SOURCES.keys() == {*playground.FILES, "index.html", "__init__.py"} - {SAMPLE}


def test_nothing_else_is_there(anonymous: httpx.Client) -> None:
    for path in ("/page", "/page/", "/page/__init__.py", "/page/index.html", "/page/../app.py"):
        assert anonymous.get(path).status_code == 404
    assert anonymous.post("/").status_code == 405


def test_the_page_is_no_part_of_the_api(anonymous: httpx.Client) -> None:
    assert not [path for path in anonymous.get("/openapi.json").json()["paths"] if "page" in path]
    assert "/" not in anonymous.get("/openapi.json").json()["paths"]


def test_the_page_gets_the_limits_and_models(anonymous: httpx.Client) -> None:
    config = anonymous.get("/page/config.json").json()
    assert config["min_input_px"] == MIN_INPUT_PX
    assert config["max_input_px"] == MAX_INPUT_PX
    assert config["max_output_px"] == MAX_OUTPUT_PX
    assert config["max_body_bytes"] == MAX_BODY_BYTES
    assert config["default_model"] == UpscalingRequest.model_fields["model"].default
    assert [model["name"] for model in config["models"]] == list(UpscalingModel)
    for model in config["models"]:
        assert model["scale"] == MODELS[model["name"]].scale
        assert model["description"].endswith(".")


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_no_file_repeats_what_the_contract_says(name: str) -> None:
    assert not re.search(r"real-esrgan-|(?<!SHA-)\b(256|2048|8192)\b", SOURCES[name])


def test_the_markup_has_no_code_or_style_of_its_own() -> None:
    """A browser would refuse them, by the policy above."""
    markup = SOURCES["index.html"]
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", markup)
    assert re.findall(r"<script[^>]*>(.*?)</script>", markup) == [""]


def test_nothing_is_ever_stored_or_made_markup_of() -> None:
    scripts = "".join(text for name, text in SOURCES.items() if name.endswith(".js"))
    scripts = scripts.replace(
        "history.replaceState(null,", ""
    )  # removes the token from the address
    words = r"localStorage|sessionStorage|indexedDB|cookie|caches\b|history\b|innerHTML|outerHTML"
    assert not re.search(words + r"|insertAdjacent|document\.write|\beval\b|Function\(", scripts)


def test_every_address_is_relative() -> None:
    """So that the page also works below a path of another server."""
    assert not re.search(r'(src|href)="(/|http)', SOURCES["index.html"])
    assert not re.search(r"""(fetch|URL)\(\s*["'`]/""", SOURCES["page.js"])
