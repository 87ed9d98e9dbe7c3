"""What is found out before anything is tested: whether there is an API that takes the token.

An empty request costs nothing. Whatever does not answer it as the API would is named in a sentence
that says what to do, instead of failing test after test.
"""

from typing import Final
from urllib.parse import urljoin

import httpx2

from contract_tests.failures import CannotBegin
from contract_tests.requests.request import UPSCALING, Request
from contract_tests.target.client import Target, reason
from contract_tests.target.http_client import TooSlow
from contract_tests.target.response import Response

ATTEMPTS: Final = 3
"""A connection may be closed once for no reason that matters."""
REDIRECTS: Final = frozenset({301, 302, 307, 308})
"""A 303 is how Modal's proxy answers while an image takes long, and followed."""
NO_ENDPOINT: Final = frozenset({404, 405, 501})
PAGE: Final = "text/html"


def accepts_token(target: Target) -> bool:
    """Whether the API at `target` takes the token.

    Raises CannotBegin if there is no API, or it cannot be asked, and Unreachable, Inconclusive or
    what the run's clock raises.
    """
    response = _post(target)
    url = target.base_url + UPSCALING
    where = urljoin(url, response.headers.get("location", ""))
    if response.status in REDIRECTS and where != url:
        known = where.endswith(UPSCALING)
        how = where.removesuffix(UPSCALING) if known else "with the URL of the API itself"
        raise CannotBegin(
            "redirected",
            f"{url} redirects to {where} ({response.status}), and clients do not follow with a "
            f"POST: give --base-url {how}",
        )
    if response.status == 400 and b"HTTPS" in response.body and url.startswith("http:"):
        raise CannotBegin(
            "redirected",
            f"{url} wants HTTPS: give --base-url https:{target.base_url.partition(':')[2]}",
        )
    if response.status in NO_ENDPOINT:
        ends = target.base_url.endswith(UPSCALING)
        how = "leave it out at the end of --base-url" if ends else "correct --base-url"
        raise CannotBegin(
            "wrong URL",
            f"there is no API at {url}, which answers {response.status} to a POST: "
            f"{UPSCALING} is added to the URL that is given, so {how}",
        )
    if response.media_type == PAGE and (response.status < 300 or response.status in (401, 403)):
        raise CannotBegin(
            "blocked",
            f"{url} answers with a page for people ({response.status}), as a firewall or a login "
            f"in front of an API does: let {target.user_agent} pass there, or give another "
            "--base-url",
        )
    return response.status not in (401, 403)


def _post(target: Target) -> Response:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return target.send_once(Request(b"{}"))
        except (httpx2.TransportError, TooSlow) as error:
            target.probe()
            if attempt == ATTEMPTS or isinstance(error, TooSlow):
                raise CannotBegin(
                    "no answer to a POST",
                    f"{target.base_url} answers a GET, but a POST to {UPSCALING} gets no answer "
                    f"({reason(error)}): see whether a proxy or firewall on the way lets POST pass",
                ) from error
    raise AssertionError("the last attempt has returned or raised")
