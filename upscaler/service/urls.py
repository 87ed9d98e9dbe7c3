"""The URLs of this service that its responses name."""

from fastapi import Request

from upscaler.errors import NotHTTP
from upscaler.host_port import is_authority
from upscaler.settings import Settings


def base_url(request: Request, settings: Settings) -> str:
    """What the URLs in a response begin with: `public_url`, or else the request's host and root.

    Raises NotHTTP for an invalid Host, which other servers than ours may let through.
    """
    if settings.public_url is not None:
        return settings.public_url
    if not all(is_authority(host) for host in request.headers.getlist("Host")):
        raise NotHTTP("the host of the request is not a host, or a host and a port")
    return str(request.base_url).rstrip("/") + settings.root_path


def job_url(request: Request, settings: Settings, route: str, job_id: str) -> str:
    """The URL of a route of an asynchronous inference: `poll`, `result` or `events`."""
    path = request.app.url_path_for(route, response_id=job_id)
    return base_url(request, settings) + str(path)
