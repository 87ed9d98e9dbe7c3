"""URLs that let whoever has them do one thing with one object of an S3-compatible store.

AWS's Signature Version 4 in a query ("Authenticating Requests: Using Query Parameters" in the
reference of S3). A client library would take as long to import as the rest of a front, or have
15 MB, and all that is needed of it are these few digests: uploads and downloads are plain HTTP.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, urlsplit

from upscaler.errors import InvalidSetting

ALGORITHM: Final = "AWS4-HMAC-SHA256"
KEY_ID, SECRET = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
REGIONS: Final = ("AWS_REGION", "AWS_DEFAULT_REGION")
ENDPOINT: Final = "AWS_ENDPOINT_URL"
"""The variables of AWS's own tools."""


@dataclass(frozen=True)
class Store:
    """A store, and the credentials to sign with. `endpoint` is a URL without a path."""

    endpoint: str
    region: str
    key_id: str
    secret: str = field(repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Store":
        """The store that AWS's variables name. Raises InvalidSetting."""
        region = next((environment[name] for name in REGIONS if environment.get(name)), "us-east-1")
        endpoint = environment.get(ENDPOINT) or f"https://s3.{region}.amazonaws.com"
        if not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]+/?", endpoint):
            raise InvalidSetting(f"{ENDPOINT}: must be a URL such as https://s3.example.com")
        for name in (KEY_ID, SECRET):
            if not environment.get(name):
                raise InvalidSetting(f"{name}: must be set for the bucket's store")
        return cls(endpoint.removesuffix("/"), region, environment[KEY_ID], environment[SECRET])

    def url(self, bucket: str, key: str) -> str:
        """An object's URL without a signature, by path: not every store has a host per bucket."""
        return f"{self.endpoint}/{bucket}/{quote(key)}"

    def sign(self, method: str, url: str, seconds: int, now: datetime | None = None) -> str:
        """`url`, an object's, signed for `method` and so many seconds from `now` on.

        S3 takes 7 days at most.
        """
        parts = urlsplit(url)
        time = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{time[:8]}/{self.region}/s3/aws4_request"
        query = "&".join(
            f"{name}={quote(value, safe='')}"
            for name, value in {
                "X-Amz-Algorithm": ALGORITHM,
                "X-Amz-Credential": f"{self.key_id}/{scope}",
                "X-Amz-Date": time,
                "X-Amz-Expires": str(seconds),
                "X-Amz-SignedHeaders": "host",
            }.items()
        )
        request = "\n".join(
            (method, parts.path, query, f"host:{parts.netloc}", "", "host", "UNSIGNED-PAYLOAD")
        )
        digest = hashlib.sha256(request.encode()).hexdigest()
        key = f"AWS4{self.secret}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signed = f"{ALGORITHM}\n{time}\n{scope}\n{digest}"
        signature = hmac.digest(key, signed.encode(), "sha256")
        return f"{url}?{query}&X-Amz-Signature={signature.hex()}"
