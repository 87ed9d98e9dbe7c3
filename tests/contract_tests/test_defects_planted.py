"""Every seeded defect is really in the mock, and can be seen from outside."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast
from unittest.mock import patch

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from mock_server.mock import Mock
from mock_server.rules.catalogue import ORDER
from mock_server.serving.connection import MockConnection
from tests.contract_tests.defects import (
    DEFECTS,
    TOKEN,
    Defect,
    Served,
    defective,
    flawless,
    planted_mock,
)
from tests.contract_tests.defects.planting import (
    changed_answer,
    changed_error,
    changed_fields,
    changed_file,
    changed_headers,
    changed_result,
    changed_size,
    redrawn,
)
from tests.contract_tests.defects.probes import DRY, asking, awaiting, upscaled
from tests.support.service import running

BY_NAME = {defect.name: defect for defect in DEFECTS}
WITH_TOKEN = {"Authorization": f"Bearer {TOKEN}"}


class Slot:
    """An app in whose place another can be put while it is served: starting a server takes time."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


@contextmanager
def slot() -> Iterator[tuple[Slot, httpx.Client]]:
    """A slot with a faultless mock in it, and a client of what is there."""
    served = Slot(Mock(tokens=(TOKEN,)).app)
    with (
        running(cast("FastAPI", served), MockConnection) as url,
        httpx.Client(base_url=url, headers=WITH_TOKEN, timeout=60) as client,
    ):
        yield served, client


@pytest.fixture(scope="module", autouse=True)
def _certificates_are_read_once() -> Iterator[None]:
    """Every mock reads them again, which takes half of the time of making one."""
    with patch.object(httpx, "create_ssl_context", return_value=httpx.create_ssl_context()):
        yield


@pytest.fixture(scope="module")
def right() -> Iterator[httpx.Client]:
    """A client of a mock without a defect; it is only asked while none is planted."""
    with slot() as (_, client):
        yield client


@pytest.fixture(scope="module")
def wrong() -> Iterator[tuple[Slot, httpx.Client]]:
    with slot() as served:
        yield served


@pytest.mark.every(5)
@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_planted_defect_is_visible(
    defect: Defect, right: httpx.Client, wrong: tuple[Slot, httpx.Client]
) -> None:
    """And nothing is left of it, or the right one would show it, too."""
    served, client = wrong
    with planted_mock(defect) as mock:
        served.app = mock.app
        shown = defect.shown_by(client)
    assert shown != defect.shown_by(right)


PLANTED_FOR_NOTHING = {
    "answer": changed_answer(lambda _, response: response),
    "headers": changed_headers(lambda asked: asked.headers),
    "result": changed_result(lambda told: told),
    "fields": changed_fields(lambda fields: fields),
    "errors": changed_error(lambda error: error),
    "size": changed_size(lambda _request, _size, right: right),
    "pixels": redrawn(lambda pixels: pixels),
    "file": changed_file(lambda data, _: data),
}


@pytest.mark.parametrize("kind", PLANTED_FOR_NOTHING)
def test_planting_alone_is_invisible(
    kind: str, right: httpx.Client, wrong: tuple[Slot, httpx.Client]
) -> None:
    requests = [asking(), asking({"Accept": "image/jpeg"}), awaiting(), asking(scale=-1)]
    served, client = wrong
    with _planted_for_nothing(kind) as mock:
        served.app = mock.app
        seen = [each(client) for each in requests]
    assert seen == [each(right) for each in requests]


@contextmanager
def _planted_for_nothing(kind: str) -> Iterator[Mock]:
    with PLANTED_FOR_NOTHING[kind]():
        yield Mock(tokens=(TOKEN,))


def test_defects_have_names_and_sentences_of_their_own() -> None:
    names = Counter(defect.name for defect in DEFECTS)
    sentences = Counter(defect.mistake for defect in DEFECTS)
    assert (names.most_common(1)[0][1], sentences.most_common(1)[0][1]) == (1, 1)
    for defect in DEFECTS:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", defect.name)
        assert re.fullmatch(r"[A-Z][^|\n]{10,110}\.", defect.mistake), defect.mistake


def test_there_are_defects_for_every_rule_of_the_api() -> None:
    broken = {rule for defect in DEFECTS for rule in defect.rules}
    assert broken == {rule for rule in ORDER if not rule.startswith("OWN-")}
    assert all(defect.rules for defect in DEFECTS)


def test_a_defective_mock_is_served_and_records_requests() -> None:
    with defective(BY_NAME["model-default-other"]) as served:
        assert _model(served) == "real-esrgan-x4-v3"
        assert len(served.mock.journal.find(route="upscaling")) == 1
    with flawless() as served:
        assert _model(served) == "real-esrgan-x4-plus"


def _model(served: Served) -> str:
    """The model that is taken if none is named."""
    with httpx.Client(
        base_url=served.url, headers={"Authorization": f"Bearer {served.token}"}
    ) as api:
        return str(upscaled(api, DRY).json()["model"])
