"""Nothing inside is reached by way of an outside name."""

import socket

import httpx
import pytest

from apps.common import egress
from apps.common.egress import EgressRefused

INSIDE = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",  # noqa: S104 (an address to refuse)
    "10.0.0.1",
    "172.16.5.5",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.2.7",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "192.88.99.1",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2001::1",
    "2001:db8::1",
]


@pytest.fixture
def dns(monkeypatch):
    """Answer look-ups from a table: `dns["name"] = [addresses]`."""
    table: dict[str, list[str]] = {}

    def lookup(host, port, **_):
        if host not in table:
            raise socket.gaierror("unknown")
        return [(0, 0, 0, "", (address, port)) for address in table[host]]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return table


@pytest.mark.parametrize("address", INSIDE)
def test_inside_address_is_not_public(address):
    assert not egress.is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111"])
def test_outside_address_is_public(address):
    assert egress.is_public(address)


@pytest.mark.parametrize("address", INSIDE)
def test_name_that_leads_inside_is_refused(dns, address):
    dns["evil.example"] = [address]

    with pytest.raises(EgressRefused):
        egress.check_url("https://evil.example/")


def test_one_inside_address_among_public_ones_is_enough(dns):
    dns["mixed.example"] = ["1.1.1.1", "10.0.0.1"]

    with pytest.raises(EgressRefused):
        egress.check_url("https://mixed.example/")


def test_public_name_gives_its_addresses(dns):
    dns["good.example"] = ["1.1.1.1", "1.0.0.1", "1.1.1.1"]

    assert egress.check_url("https://good.example/") == ["1.1.1.1", "1.0.0.1"]


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://good.example/",
        "gopher://good.example/",
        "https://",
        "https:///path",
        "https://user:word@good.example/",
        "https://user@good.example/",
    ],
)
def test_other_urls_are_refused(dns, url):
    dns["good.example"] = ["1.1.1.1"]

    with pytest.raises(EgressRefused):
        egress.check_url(url)


@pytest.mark.parametrize("host", ["0x7f000001", "2130706433", "127.1", "0177.0.0.1"])
def test_odd_spellings_of_loopback_are_refused(host):
    """The resolver knows these; the check looks at what it answers."""
    with pytest.raises((EgressRefused, httpx.ConnectError, AssertionError)):
        egress.check_url(f"http://{host}/")


def test_local_server_is_reached_as_written_down(dns):
    dns["localhost"] = ["127.0.0.1"]

    found = egress.check_url("http://localhost:11434/v1", local={"localhost:11434"})

    assert found == ["127.0.0.1"]


@pytest.mark.parametrize("url", ["http://localhost:5432/", "http://127.0.0.1:11434/"])
def test_local_server_is_not_reached_otherwise(dns, url):
    dns["localhost"] = dns["127.0.0.1"] = ["127.0.0.1"]

    with pytest.raises(EgressRefused):
        egress.check_url(url, local={"localhost:11434"})


def test_name_without_address_is_a_connection_failure(dns):
    with pytest.raises(httpx.ConnectError):
        egress.check_url("https://nowhere.example/")


def test_client_refuses_before_it_connects(dns):
    dns["evil.example"] = ["169.254.169.254"]

    with egress.client() as client, pytest.raises(EgressRefused):
        client.get("http://evil.example/latest/meta-data")


def test_client_reads_no_proxy_from_the_environment(dns, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")

    with egress.client() as client:
        assert not client.trust_env
        assert all(mount is None for mount in client._mounts.values())


def test_request_goes_to_the_checked_address_under_its_own_name(dns):
    dns["good.example"] = ["1.1.1.1"]
    request = httpx.Request("GET", "https://good.example/path")

    egress._pin(request, frozenset())

    assert (request.url.host, request.headers["Host"]) == ("1.1.1.1", "good.example")
    assert request.extensions["sni_hostname"] == "good.example"
