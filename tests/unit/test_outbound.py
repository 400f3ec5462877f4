"""The guard for addresses that users name: which are read, which are refused, what is pinned."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airavata_scheduler.backends import targets
from airavata_scheduler.backends.outbound import Outbound, OutboundRefused, Unreachable
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.errors import BadInput, ConfigurationError

EVERYTHING_PRIVATE = ("127.0.0.0/8", "10.0.0.0/8", "169.254.0.0/16", "0.0.0.0/1", "128.0.0.0/1",
                      "::/1", "8000::/1")  # fmt: skip

ALWAYS_REFUSED = [
    "169.254.169.254",
    "169.254.170.2",
    "169.254.0.1",
    "0.0.0.0",
    "0.1.2.3",
    "255.255.255.255",
    "240.0.0.1",
    "224.0.0.1",
    "239.255.255.250",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    "::",
    "ff02::1",
    "ff0e::1",
    "fe80::1",
    "fe80::a9fe:a9fe",
    "fec0::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.0",
    "::ffff:255.255.255.255",
    "::a9fe:a9fe",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "2002:e000:1::",
    "64:ff9b::224.0.0.1",
]

REFUSED_UNLESS_LISTED = [
    "127.0.0.1",
    "127.1.2.3",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "198.18.0.1",
    "192.0.2.1",
    "198.51.100.7",
    "203.0.113.9",
    "::1",
    "fd12:3456::1",
    "fc00::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::10.0.0.1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "::7f00:1",
    "64:ff9b:1::1",
    "::ffff:0:7f00:1",
    "100::1",
    "4000::1",
]

PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "93.184.215.14",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
]

BAD_TARGETS = [
    "ssh://0x7f.1",
    "ssh://127.1",
    "ssh://2130706433",
    "ssh://017700000001",
    "ssh://0x7f000001",
    "ssh://0177.0.0.1",
    "ssh://127.0.0.01",
    "ssh://127.0.0.1..",
    "ssh://1.2.3",
    "ssh://256.1.1.1",
    "ssh://0x7f.0x0.0x0.0x1",
    "ssh://1.0x",
    "ssh://host.123",
    "ssh://[::1",
    "ssh://::1",
    "ssh://[fe80::1%25eth0]",
    "ssh://[fe80::1%eth0]",
    "ssh://[1.2.3.4]",
    "ssh://[v1.x]",
    "ssh://",
    "ssh://:",
    "ssh://host:",
    "ssh://host:0",
    "ssh://host:65536",
    "ssh://host:-1",
    "ssh://host:x",
    "ssh://host:22:22",
    "ssh://user:pass@host",
    "ssh://-oProxyCommand=x@host",
    "ssh://a@b@host",
    "ssh://host/etc",
    "ssh://host?x=1",
    "ssh://host#x",
    "ssh://-host",
    "ssh://host-",
    "ssh://a..b",
    "ssh://.host",
    "ssh://ho%73t",
    "ssh://ho\\st",
    "ssh://%31%32%37.0.0.1",
    "ssh://\uff11\uff12\uff17.0.0.1",
    "ssh://127。0。0。1",
    "ssh://ⓛocalhost",
    "ssh://hÖst",
    "file:///etc/passwd",
    "http://host",
    "gopher://host",
    "ftp://host",
    "ldap://host",
    "dict://host:11211",
    "ssh:host",
    "//host",
    "host",
    "host:22",
    "javascript:alert(1)",
    "https://user@host",
    "https://user:pw@host",
    "https://host/../x",
    "https://host/%2e%2e/x",
    "https://host?x=1",
    "https://host/%00",
    "https://host/#@other",
    "https://host\\@other",
    "https://host`id`",
    "https://<host>",
    "jar:https://host!/x",
    "s3://key:secret@host/bucket",
    "s3://host/../b",
    "s3://host/b?secure=false&secure=true",
    "s3://host/b?unknown=1",
]  # full-width digits, dots and letters among them

ODD_TEXTS = ["", " ", "ssh://host name", "ssh://host\n", "ssh://host\0", "ssh://\x1b[2Jhost",
             "ssh://" + "a" * 64, "ssh://" + "a." * 200 + "b", "https://host/" + "x" * 1100,
             "\tssh://host", "ssh://host\r\nX: y", "ssh://\ud800"]  # fmt: skip


def scheme_of(text: str) -> tuple[str, ...]:
    """What the corpus' text is tried as."""
    found = text.partition(":")[0]
    return (found,) if found in targets.PORTS else ("ssh", "https")


@pytest.mark.parametrize("text", BAD_TARGETS + ODD_TEXTS, ids=ascii)
def test_malformed_targets_are_refused(text: str) -> None:
    """With the right form; a password within the address is not repeated."""
    with pytest.raises(BadInput) as refusal:
        targets.parse(text, scheme_of(text), options=("secure",))

    assert (refusal.value.code, refusal.value.field) == ("target_invalid", "target")
    assert "Write it as" in (refusal.value.hint or "")
    assert refusal.value.detail.isprintable()
    assert "pass@" not in refusal.value.detail
    assert "secret" not in refusal.value.detail


@pytest.mark.parametrize(
    ("text", "host", "port", "user", "path"),
    [
        ("ssh://login.example.org", "login.example.org", 22, None, ""),
        ("ssh://jane@LOGIN.example.org.:2222/", "login.example.org", 2222, "jane", "/"),
        ("https://[2001:DB8:0::1]:6443", "2001:db8::1", 6443, None, ""),
        ("https://[::ffff:127.0.0.1]/api", "::ffff:7f00:1", 443, None, "/api"),
        ("https://127.0.0.1.", "127.0.0.1", 443, None, ""),
        ("s3://s3.example.org/bucket", "s3.example.org", 443, None, "/bucket"),
        ("ssh://node_1", "node_1", 22, None, ""),
        ("ssh://xn--hst-sna.example.org", "xn--hst-sna.example.org", 22, None, ""),
    ],
)
def test_targets_are_read(text: str, host: str, port: int, user: str | None, path: str) -> None:
    """One spelling of the host, the scheme's port where none is named."""
    found = targets.parse(text, scheme_of(text))

    assert (found.host, found.port, found.user, found.path) == (host, port, user, path)


def pins(address: str, *allow: str, host: str = "host.example.org") -> bool:
    """Whether a name with this one address may be connected to."""
    try:
        return bool(Outbound(allow, resolve=lambda *_: [address]).pin(host, 22).addresses)
    except OutboundRefused as refusal:
        assert refusal.field == "target"
        assert "OUTBOUND_ALLOW" in (refusal.hint or "")
        return False


@pytest.mark.parametrize("address", ALWAYS_REFUSED)
def test_no_word_of_the_operator_opens_these(address: str) -> None:
    """Metadata services, link-local, unspecified, multicast, broadcast: also where listed."""
    assert not pins(address)
    assert not pins(address, *EVERYTHING_PRIVATE, "host.example.org")
    assert not pins("8.8.8.8", host=address)


@pytest.mark.parametrize("address", REFUSED_UNLESS_LISTED)
def test_private_addresses_need_the_operators_word(address: str) -> None:
    """By network, by address or by the name of the host."""
    assert not pins(address)
    assert not pins(address, "192.168.77.0/24", "other.example.org")
    assert pins(address, *EVERYTHING_PRIVATE)
    assert pins(address, "host.example.org")
    assert not pins(address, "host.example.org", host="evil.host.example.org")


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_free(address: str) -> None:
    """Nobody has to list the internet."""
    assert pins(address)


def test_the_corpus_is_large() -> None:
    """At least sixty addresses, and none twice."""
    every = ALWAYS_REFUSED + REFUSED_UNLESS_LISTED + PUBLIC

    assert len(set(every)) == len(every) >= 60


@given(st.integers(0, 2**32 - 1))
def test_no_address_is_freer_within_ipv6(number: int) -> None:
    """What is refused as IPv4 is refused in each IPv6 form that leads to it."""
    plain = ipaddress.IPv4Address(number)
    within = [
        f"::ffff:{plain}",
        f"64:ff9b::{plain}",
        f"2002:{number >> 16:x}:{number & 0xFFFF:x}::",
    ]

    assert {pins(form) for form in within} == {pins(str(plain))}


@given(st.ip_addresses())
def test_nothing_but_global_addresses_is_free(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """Whatever the special registries hold today."""
    if pins(str(address)):
        assert address.is_global
        assert not address.is_multicast


def test_addresses_that_may_not_be_reached_are_dropped() -> None:
    """A name with a public and a metadata address leads to the public one only."""
    outbound = Outbound(
        resolve=lambda *_: ["169.254.169.254", "fe80::1%eth0", "8.8.8.8", "10.0.0.1"]
    )

    assert outbound.pin("host.example.org", 443).addresses == ("8.8.8.8",)


def test_the_refusal_names_the_address_that_was_met() -> None:
    """So that the operator knows what to list."""
    with pytest.raises(OutboundRefused) as refusal:
        Outbound(resolve=lambda *_: ["10.1.2.3"]).pin("login.example.org", 22)

    assert refusal.value.detail.startswith("login.example.org (10.1.2.3) is a loopback or private")
    assert refusal.value.code == "outbound_refused"


def test_a_name_is_asked_for_once() -> None:
    """DNS that changes its answer between the look and the connection changes nothing."""
    answers = iter([["127.0.0.1"], ["169.254.169.254"]])
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    with (
        listener,
        Outbound(("127.0.0.1",), resolve=lambda *_: next(answers)) as outbound,
        outbound.connect("rebind.example.org", port) as connected,
    ):
        peer = connected.getpeername()

    assert peer == ("127.0.0.1", port)
    assert next(answers) == ["169.254.169.254"]


def test_a_literal_address_is_not_looked_up() -> None:
    """No resolver gets to say what an address means."""

    def resolve(host: str, port: int) -> list[str]:
        raise AssertionError(host)

    assert Outbound(("127.0.0.0/8",), resolve=resolve).pin("127.0.0.1", 1).address == "127.0.0.1"


@pytest.mark.parametrize("error", [socket.gaierror("no"), UnicodeError("label too long")])
def test_a_name_without_address_is_unreachable(error: Exception) -> None:
    """It may have one tomorrow."""

    def resolve(host: str, port: int) -> list[str]:
        raise error

    with pytest.raises(Unreachable, match="has no address"):
        Outbound(resolve=resolve).pin("nowhere.example.org", 22)


def test_a_resolver_that_hangs_is_left_behind() -> None:
    """The deadline holds also where the system's resolver has none."""
    hang = threading.Event()

    def resolve(host: str, port: int) -> list[str]:
        hang.wait()
        return []

    began = time.monotonic()
    with pytest.raises(Unreachable, match="not resolved in time"):
        Outbound(seconds=0.2, resolve=resolve).pin("slow.example.org", 22)
    took = time.monotonic() - began
    hang.set()

    assert took < 5


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_connections_are_shut_at_the_deadline(silent: int) -> None:
    """A server that says nothing holds nobody up, whatever time limit the socket has."""
    with (
        Outbound(("127.0.0.1",), seconds=0.3) as outbound,
        outbound.connect("127.0.0.1", silent) as connected,
    ):
        connected.settimeout(30)
        began = time.monotonic()
        received = connected.recv(1)
        took = time.monotonic() - began
        over = outbound.is_over

    assert received == b""
    assert took < 10
    assert over


def test_a_closed_port_is_told_from_silence() -> None:
    """The sentence says what to look at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with (
        Outbound(("127.0.0.1",)) as outbound,
        pytest.raises(Unreachable, match=f"127.0.0.1 port {port}: the port is closed"),
    ):
        outbound.connect("127.0.0.1", port)


def read_setting(text: str) -> tuple[str, ...]:
    """OUTBOUND_ALLOW as the configuration reads it."""
    return Configuration.read({"OUTBOUND_ALLOW": text}, dotenv=None).outbound_allow


def test_the_setting_is_read() -> None:
    """Networks, addresses, names; nothing at first."""
    assert read_setting("") == ()
    assert read_setting("10.0.0.0/8, fd00::/8,login.example.org , 127.0.0.1,localhost") == (
        *("10.0.0.0/8", "fd00::/8", "login.example.org", "127.0.0.1", "localhost"),
    )


@pytest.mark.parametrize(
    "text",
    ["0.0.0.0/0", "::/0", "10.1.0.0/8", "10.0.0.0/33", "*", "*.example.org", "a b", "ssh://host",
     "10.0.0", "1.2.3.4.5", "host:22"],
)  # fmt: skip
def test_a_setting_that_means_too_much_stops_the_start(text: str) -> None:
    """A typing mistake there would open the inside."""
    with pytest.raises(ConfigurationError, match="OUTBOUND_ALLOW"):
        read_setting(text)
