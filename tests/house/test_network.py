"""No test reaches the network."""

import socket

import pytest

from tests.network import NetworkBlocked


def test_connection_to_a_public_address_is_blocked():
    with socket.socket() as client, pytest.raises(NetworkBlocked):
        client.connect(("192.0.2.1", 80))


def test_lookup_of_a_name_is_blocked():
    with pytest.raises(NetworkBlocked):
        socket.getaddrinfo("example.com", 80)


def test_datagram_to_a_public_address_is_blocked():
    with (
        socket.socket(type=socket.SOCK_DGRAM) as client,
        pytest.raises(NetworkBlocked),
    ):
        client.sendto(b"x", ("192.0.2.1", 53))


def test_loopback_passes():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=5) as client,
    ):
        assert client.getpeername() == server.getsockname()


def test_unix_socket_passes():
    left, right = socket.socketpair(socket.AF_UNIX)
    with left, right:
        left.sendall(b"x")
        assert right.recv(1) == b"x"
