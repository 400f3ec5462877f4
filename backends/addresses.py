"""Which network addresses the scheduler connects to on a user's word.

Always refused: what belongs to this machine's own link or to a cloud's metadata service, and what
is no single machine's address. Loopback and private ranges need the operator's word, in
OUTBOUND_ALLOW. IPv6 forms that carry an IPv4 address (mapped, compatible, NAT64, 6to4, Teredo) are
judged by that one as well.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Metadata and host services of clouds that no general rule below refuses.
_NEVER = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # reaches this machine on Linux
        "240.0.0.0/4",  # reserved, and broadcast
        "169.254.0.0/16",
        "100.100.100.200/32",  # Alibaba
        "192.0.0.192/32",  # Oracle
        "168.63.129.16/32",  # Azure
        "fe80::/10",
        "fec0::/10",
        "fd00:ec2::/32",  # Amazon
        "fd20:ce::254/128",  # Google
        "::/128",
    )
)
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")


@dataclass(frozen=True)
class Allowed:
    """OUTBOUND_ALLOW as it was parsed: networks, and names of hosts."""

    networks: tuple[_Network, ...] = ()
    hosts: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def of(cls, entries: Iterable[str]) -> Allowed:
        """From the setting's entries, which its parser has found good."""
        networks, hosts = [], set()
        for entry in entries:
            try:
                networks.append(ipaddress.ip_network(entry))
            except ValueError:
                hosts.add(entry.lower())
        return cls(tuple(networks), frozenset(hosts))

    def names(self, host: str, address: Address) -> bool:
        """Whether the operator listed this host or address."""
        if host in self.hosts:
            return True
        return any(
            address.version == network.version and address in network for network in self.networks
        )


def why_refused(address: Address, host: str, allowed: Allowed) -> str | None:
    """Why nobody may connect to the address, as the rest of a sentence; None where one may."""
    for one in (address, *carried(address)):
        if _is_never(one):
            return "is a link-local, metadata, multicast, broadcast or unspecified address"
    inner = (carried(address) or (address,))[-1]
    if _is_public(inner) or allowed.names(host, inner):
        return None
    return "is a loopback or private address, which OUTBOUND_ALLOW does not name"


def _is_never(address: Address) -> bool:
    if address.is_multicast or address.is_unspecified:
        return True
    return any(address.version == network.version and address in network for network in _NEVER)


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    return address.is_global


def carried(address: Address) -> tuple[Address, ...]:
    """The IPv4 address within an IPv6 one that leads to it; nothing for all others."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address.teredo is not None:
        return address.teredo
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF),)
    return ()
