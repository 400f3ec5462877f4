"""Ports for the private servers of tests: two of them never get the same one."""

from __future__ import annotations

import subprocess
import sys

from tests.servers.programs import PORTS, free_port, listens

_TAKE = "from tests.servers.programs import free_port; print(*(free_port() for _ in range(500)))"


def test_two_processes_get_different_ports() -> None:
    """What one run of tests has taken, another that runs beside it does not get."""
    ours = {free_port() for _ in range(500)}
    told = subprocess.run([sys.executable, "-c", _TAKE], capture_output=True, text=True, check=True)
    theirs = {int(port) for port in told.stdout.split()}
    assert len(ours) == len(theirs) == 500
    assert ours.isdisjoint(theirs)


def test_a_pair_is_free_as_a_whole() -> None:
    """The second port of a pair is taken like the first."""
    port = free_port(pair_above=10_000)
    assert port in PORTS and port + 10_000 in PORTS
    assert not listens(port) and not listens(port + 10_000)
    assert port + 10_000 not in {free_port() for _ in range(500)}
