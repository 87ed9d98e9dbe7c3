"""The sockets that a server listens on."""

import socket

import pytest

from upscaler.service.server.addresses import listen, url_of


def test_an_ipv6_address_is_in_brackets_in_the_url() -> None:
    try:
        (listener,) = listen("::1", 0)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listener:
        assert url_of(listener) == f"http://[::1]:{listener.getsockname()[1]}"


def test_if_one_address_is_taken_no_socket_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest fails a test that leaves a socket to the garbage collector."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        both = [(socket.AF_INET, 0, 0, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
        with pytest.raises(OSError, match="Address already in use") as failed:
            listen("localhost", port)
    assert failed.value.filename == f"localhost:{port}"
