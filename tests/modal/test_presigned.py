"""Signed URLs, beside the example in AWS's reference, and beside those of AWS's own library."""

from datetime import UTC, datetime
from typing import Any

import pytest

from upscaler.errors import InvalidSetting
from upscaler.modal.presigned import Store

KEYS = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "a secret"}


def test_a_url_is_signed_as_in_the_example_of_the_reference() -> None:
    """ "Example: Presigned URL" in "Authenticating Requests: Using Query Parameters"."""
    store = Store(
        "https://examplebucket.s3.amazonaws.com",
        "us-east-1",
        "AKIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    )
    url = f"{store.endpoint}/test.txt"
    assert store.sign("GET", url, 86400, datetime(2013, 5, 24, tzinfo=UTC)) == (
        f"{url}?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


@pytest.mark.dev  # botocore comes with octoai
@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize(
    ("endpoint", "region"),
    [
        ("https://s3.eu-central-1.amazonaws.com", "eu-central-1"),
        ("https://account.r2.cloudflarestorage.com", "auto"),
        ("http://[::1]:9000", "us-east-1"),
    ],
)
def test_urls_are_those_of_botocore(
    monkeypatch: pytest.MonkeyPatch, method: str, endpoint: str, region: str
) -> None:
    auth: Any = pytest.importorskip("botocore.auth")
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    now = datetime(2026, 11, 30, 9, 5, 7, tzinfo=UTC)
    monkeypatch.setattr(auth, "get_current_datetime", lambda *_, **__: now.replace(tzinfo=None))
    store = Store(endpoint, region, "AK/ID+x", "sec/ret")
    url = store.url("buck.et", "octo-upscaler/a-_Z9")
    request: Any = AWSRequest(method, url)
    credentials = Credentials("AK/ID+x", "sec/ret")
    auth.S3SigV4QueryAuth(credentials, "s3", region, expires=77).add_auth(request)
    assert store.sign(method, url, 77, now) == request.url


@pytest.mark.parametrize(
    ("chosen", "region", "url"),
    [
        ({}, "us-east-1", "https://s3.us-east-1.amazonaws.com/a/b/c"),
        ({"AWS_REGION": "eu-west-1"}, "eu-west-1", "https://s3.eu-west-1.amazonaws.com/a/b/c"),
        (
            {"AWS_DEFAULT_REGION": "auto", "AWS_ENDPOINT_URL": "http://[::1]:9000/"},
            "auto",
            "http://[::1]:9000/a/b/c",
        ),
    ],
)
def test_the_store_is_the_one_that_awss_variables_name(
    chosen: dict[str, str], region: str, url: str
) -> None:
    store = Store.from_environment({**KEYS, **chosen})
    assert (store.region, store.url("a", "b/c")) == (region, url)
    assert "a secret" not in repr(store)


@pytest.mark.parametrize(
    "wrong",
    [
        {"AWS_ACCESS_KEY_ID": ""},
        {"AWS_SECRET_ACCESS_KEY": ""},
        {"AWS_ENDPOINT_URL": "s3.example.com"},
        {"AWS_ENDPOINT_URL": "https://s3.example.com/bucket"},
    ],
)
def test_what_is_missing_or_wrong_is_named(wrong: dict[str, str]) -> None:
    with pytest.raises(InvalidSetting, match=f"^{next(iter(wrong))}: must be "):
        Store.from_environment({**KEYS, **wrong})
