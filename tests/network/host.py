"""A host as far as the network goes: a namespace with one cable to this machine.

Its disk, clock and processes are this machine's, so histories of both sides have one time. What is
done to the cable is done on the host's side, or by pulling it out; nothing else of this machine's
network is touched. Root is needed, and nft for what is more than a pulled cable.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.servers.programs import missing, program
from tests.waiting import wait_until

_TABLE = """
table ip faults {
    chain out { type filter hook output priority 0; }
    chain back { type filter hook input priority 0; }
}
"""
# What a fault is in words of nft: (chain, rule).
RULES: dict[str, tuple[tuple[str, str], ...]] = {
    "cut-out": (("out", "oifname eth0 drop"),),
    "cut-back": (("back", "iifname eth0 drop"),),
    "loss": (
        ("out", "oifname eth0 numgen random mod 100 < 25 drop"),
        ("back", "iifname eth0 numgen random mod 100 < 25 drop"),
    ),
    "reset": (("out", "oifname eth0 meta l4proto tcp reject with tcp reset"),),
}
FAULTS = ("cut", *RULES)


class NetHost:
    """The namespace of `keeper`; `near` is this machine's address on the cable."""

    def __init__(self, keeper: int, cable: str) -> None:
        self._keeper, self._cable = keeper, cable
        number = socket.if_nametoindex(cable)  # of no other cable, so its addresses are free
        net = f"10.77.{number // 64 % 256}.{number % 64 * 4}".rsplit(".", 1)
        self.near, self.far = (f"{net[0]}.{int(net[1]) + end}" for end in (1, 2))

    def command(self) -> list[str]:
        """What to write before a command, so that its network is the host's."""
        return ["nsenter", "--target", str(self._keeper), "--net"]

    def break_line(self, fault: str) -> None:
        """One of FAULTS, until `mend_line`; connections stay as they are, as far as they can."""
        if fault == "cut":
            _run("ip", "link", "set", self._cable, "down")
            return
        for chain, rule in RULES[fault]:
            _run(*self.command(), "nft", "add", "rule", "ip", "faults", chain, rule)

    def mend_line(self) -> None:
        """All is as at the beginning."""
        _run("ip", "link", "set", self._cable, "up")
        _run(*self.command(), "nft", "flush", "table", "ip", "faults")

    def lay_cable(self) -> None:
        """Addresses on both ends."""
        _run("ip", "address", "add", f"{self.near}/30", "dev", self._cable)
        _run("ip", "link", "set", self._cable, "up")
        inside = self.command()
        _run(*inside, "ip", "address", "add", f"{self.far}/30", "dev", "eth0")
        for device in ("lo", "eth0"):
            _run(*inside, "ip", "link", "set", device, "up")
        subprocess.run([*inside, "nft", "-f", "-"], input=_TABLE, text=True, check=True)


@contextmanager
def net_host() -> Iterator[NetHost]:
    """A host with its cable for the block."""
    programs = ("ip", "nft", "unshare", "nsenter")
    if os.getuid() != 0 or any(program(name) is None for name in programs):
        missing("root with ip, nft, unshare and nsenter, for networks that fail")
    keeper = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo ready; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == b"ready\n", "no network namespace can be made"
        cable = f"av{keeper.pid}"
        peer = ("type", "veth", "peer", "name", "eth0", "netns", str(keeper.pid))
        _run("ip", "link", "add", cable, *peer)
        host = NetHost(keeper.pid, cable)
        host.lay_cable()
        yield host
    finally:
        keeper.communicate()  # the namespace ends with its last process, and takes the cable along
        wait_until(lambda: not _exists(f"av{keeper.pid}"), message="the cable to be gone")


def _exists(device: str) -> bool:
    try:
        return socket.if_nametoindex(device) > 0
    except OSError:
        return False


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
