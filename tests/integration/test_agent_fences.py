"""The last fences against a second start, tried directly: what a confused agent would send."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airavata_scheduler.agent import pool_worker, processes
from airavata_scheduler.agent.framing import bind_socket, connect_socket, frame, read_json
from airavata_scheduler.agent.journal_state import DOUBTED, Entry
from airavata_scheduler.agent.places import Places
from airavata_scheduler.agent.pool_worker import read_ledger
from airavata_scheduler.agent.recovery import Recovery
from airavata_scheduler.agent.wrapper import DUPLICATE, Wrapper
from tests.waiting import wait_until


def _in_child(deed: Any) -> int:
    """Run `deed` in a forked process, as the shepherd does; its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = deed()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _order(folder: Path, script: str) -> dict[str, Any]:
    return {
        "lease": folder.name,
        "folder": str(folder),
        "script": f"#!/bin/sh\n{script}\n",
        "environment": {"PATH": os.environ["PATH"]},
        "log_bytes": 1 << 20,
        "boot_id": "b",
    }


def test_a_second_wrapper_of_a_lease_ends_as_a_duplicate(tmp_path: Path) -> None:
    """The order given twice: the script ran once, the first one's exit.json stays."""
    folder = Places(tmp_path).make("t.1." + "0" * 32)
    order = _order(folder, f"echo ran >> {tmp_path}/ledger")

    first = _in_child(Wrapper(order).run)
    second = _in_child(Wrapper(order).run)

    assert (first, second) == (0, DUPLICATE)
    assert (tmp_path / "ledger").read_text() == "ran\n"
    assert (read_json(folder / "exit.json") or {})["exit_code"] == 0


def test_a_lease_that_was_dropped_in_doubt_is_not_started_later(tmp_path: Path) -> None:
    """The agent died with its order on the way to the shepherd, and its journal is torn."""
    folder = Places(tmp_path).make("t.1." + "0" * 32)
    runtime: Any = SimpleNamespace(places=Places(tmp_path), boot_id="b")
    entry = Entry({"lease": folder.name}, DOUBTED)

    is_here = Recovery(runtime)._is_here(folder.name, entry)
    late = _in_child(Wrapper(_order(folder, f"echo ran >> {tmp_path}/ledger")).run)

    assert not is_here
    assert late == DUPLICATE
    assert not (tmp_path / "ledger").exists()


def test_the_end_is_on_the_disk_before_it_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes of `exit.json` are synced before the name is there: it is whole or not at all."""
    folder = Places(tmp_path).make("t.1." + "0" * 32)
    seen = tmp_path / "seen"
    real = os.fsync

    def noted(fd: int) -> None:
        real(fd)
        there = (folder / "exit.json").exists()
        data = Path(f"/proc/self/fd/{fd}").read_bytes()
        with seen.open("ab") as file:
            file.write(b"%d %s\n" % (there, data))

    monkeypatch.setattr(os, "fsync", noted)
    assert _in_child(Wrapper(_order(folder, "exit 3")).run) == 0

    assert seen.read_bytes() == b"0 " + (folder / "exit.json").read_bytes() + b"\n"


def test_a_payload_that_is_deaf_to_term_is_killed(tmp_path: Path) -> None:
    """At its time limit TERM, after the grace KILL."""
    folder = Places(tmp_path).make("t.1." + "0" * 32)
    deaf = "trap '' TERM; while :; do sleep 0.05; done"
    order = _order(folder, deaf) | {"timeout_s": 0.2, "grace_s": 0.2}

    assert _in_child(Wrapper(order).run) == 0

    ended = read_json(folder / "exit.json") or {}
    assert (ended["reason"], ended["signal"]) == ("timeout", signal.SIGKILL)


def test_a_call_that_is_sent_again_is_not_run_again(tmp_path: Path) -> None:
    """Twice in one message, and again after its end: the ledger knows it."""
    call: dict[str, Any] = {
        "lease": "t.1." + "0" * 32,
        "folder": str(tmp_path / "lease"),
        "environment": {},
        "arguments": None,
        "timeout_s": None,
    }
    source = f"def f():\n    open({str(tmp_path / 'ran')!r}, 'a').write('ran\\n')\n"

    with _worker(tmp_path, source) as agent:
        agent.sendall(frame({"calls": [call, call]}))
        wait_until(lambda: _ends(tmp_path) == 1, message="the call's end")
        last = {**call, "lease": "t.2." + "1" * 32}
        agent.sendall(frame({"calls": [call, last]}))
        wait_until(lambda: _ends(tmp_path) == 2, message="the second call's end")

    assert (tmp_path / "ran").read_text() == "ran\n" * 2
    assert _entries(tmp_path) == ["S", "E", "S", "E"]


def test_calls_that_have_not_begun_are_given_back(tmp_path: Path) -> None:
    """While a call is busy, those behind it can be taken to another worker."""
    gate = tmp_path / "gate"
    source = f"import os\ndef f():\n    while not os.path.exists({str(gate)!r}): pass\n"
    calls: list[dict[str, Any]] = [
        {
            "lease": f"t.{n}." + "0" * 32,
            "folder": str(tmp_path / "lease"),
            "environment": {},
            "arguments": None,
            "timeout_s": None,
        }
        for n in range(3)
    ]

    with _worker(tmp_path, source) as agent:
        agent.sendall(frame({"calls": calls}))
        wait_until(lambda: _entries(tmp_path), message="the call's begin")
        agent.sendall(frame({"give_back": True}))
        answer = agent.recv(65536)
        gate.touch()
        wait_until(lambda: _ends(tmp_path) == 1, message="the call's end")

    assert calls[1]["lease"].encode() in answer
    assert calls[2]["lease"].encode() in answer
    assert calls[0]["lease"].encode() not in answer
    assert _entries(tmp_path) == ["S", "E"]


def _entries(folder: Path) -> list[str]:
    """The ledger's kinds in order; none while the worker has not made it yet."""
    path = folder / "ledger"
    return [entry["k"] for entry in read_ledger(path.read_bytes())[0]] if path.exists() else []


def _ends(folder: Path) -> int:
    return _entries(folder).count("E")


@contextmanager
def _worker(folder: Path, source: str) -> Iterator[socket.socket]:
    """A warm worker in a forked process, and the agent's line to it."""
    order = {
        "folder": str(folder),
        "python": {"entry": "f", "source": source, "codec": "json"},
        "environment": {"PATH": os.environ["PATH"]},
    }
    server = bind_socket(folder / "sock")
    pid = os.fork()
    if pid == 0:
        try:
            pool_worker.serve(order, server)
        finally:
            os._exit(0)
    server.close()
    agent = connect_socket(folder / "sock")
    assert agent is not None
    try:
        yield agent
    finally:
        agent.close()
        processes.send(pid, processes.start_ticks(pid) or 0, 9)
        os.waitpid(pid, 0)
