"""Says which proxy of the environment keeps clients from a mock on this machine."""

import os
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

NAMES = ("no_proxy", "NO_PROXY")
"""Of both, most clients obey the first."""


def proxy_of(url: str) -> str:
    """Return a sentence about the proxy that clients would ask for `url`; empty without one."""
    host = urlsplit(url).hostname or ""
    proxies = getproxies()
    proxy = proxies.get(urlsplit(url).scheme) or proxies.get("all")
    if not proxy or proxy_bypass(host):
        return ""
    name = next((name for name in NAMES if name in os.environ), "NO_PROXY")
    value = ",".join(filter(None, [os.environ.get(name), host]))
    # Without what may stand before it: a password.
    where = proxy.rpartition("@")[2].removeprefix("http://")
    return (
        f"clients that obey the environment send requests to it to the proxy {where}. Set "
        f"{name}={value}, or let the client ignore the environment (httpx: trust_env=False)"
    )
