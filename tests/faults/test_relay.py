"""The relay does what its commands say, so that what the apps meet is what the tests name."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from faults.relay import Relay


@pytest.fixture
def relay() -> Iterator[Relay]:
    """Return a relay before a server that sends back what it gets."""
    server = socket.create_server(("127.0.0.1", 0))

    def echo(peer: socket.socket) -> None:
        try:
            while data := peer.recv(65_536):
                peer.sendall(data)
        except OSError:
            pass
        peer.close()

    def serve() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=echo, args=(peer,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    relay = Relay(server.getsockname()[1]).start()
    yield relay
    relay.stop()
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def connect(relay: Relay) -> socket.socket:
    return socket.create_connection(("127.0.0.1", relay.port), timeout=2)


def says(peer: socket.socket, data: bytes = b"hello") -> bytes:
    peer.sendall(data)
    answer = b""
    while len(answer) < len(data) and (more := peer.recv(65_536)):
        answer += more
    return answer


def gets_nothing(peer: socket.socket) -> bool:
    """Return whether a connection ends without an answer, whichever way."""
    try:
        return says(peer) == b""
    except OSError:
        return True


def test_bytes_arrive_as_they_were_sent_and_are_counted(relay: Relay) -> None:
    content = bytes(range(256)) * 2000
    assert says(connect(relay), content) == content
    assert (relay.connections, relay.bytes_there, relay.bytes_back) == (1, len(content), len(content))


def test_delay_is_waited_each_way(relay: Relay) -> None:
    relay.weather.delay_s = 0.05
    began = time.monotonic()
    assert says(connect(relay)) == b"hello"
    assert 0.1 <= time.monotonic() - began < 1


def test_reset_loss_and_refusal_end_connections_each_in_its_way(relay: Relay) -> None:
    peer = connect(relay)
    assert says(peer)
    relay.reset()
    with pytest.raises(ConnectionResetError):
        peer.recv(1)
    peer = connect(relay)
    assert says(peer)
    relay.lose()
    assert peer.recv(1) == b""
    relay.weather.refuses = True
    assert gets_nothing(connect(relay))
    relay.weather.refuses = False
    assert says(connect(relay)) == b"hello"


def test_half_open_connection_answers_nothing_even_when_the_network_is_back(relay: Relay) -> None:
    peer = connect(relay)
    assert says(peer)
    relay.weather.swallows = True
    peer.sendall(b"lost")
    peer.settimeout(0.2)
    with pytest.raises(TimeoutError):
        peer.recv(1)
    relay.weather.swallows = False
    peer.sendall(b"lost too")
    with pytest.raises(TimeoutError):
        peer.recv(1)
    assert says(connect(relay)) == b"hello"
