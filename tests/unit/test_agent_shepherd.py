"""The line between agent and shepherd: whole messages, or an end that both sides see."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from airavata_scheduler.agent import shepherd_client
from airavata_scheduler.agent.framing import FrameReader, frame
from airavata_scheduler.agent.shepherd import Shepherd
from airavata_scheduler.agent.shepherd_client import ShepherdClient


def test_an_agent_that_does_not_read_loses_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a message is never followed by another: the line ends, and the agent connects again."""
    here, there = socket.socketpair()
    there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    shepherd = Shepherd.__new__(Shepherd)
    shepherd._agents = {there.fileno(): (there, FrameReader())}
    monkeypatch.setattr("airavata_scheduler.agent.shepherd._PATIENCE_S", 0.01)

    shepherd._tell({"over": ["x" * 1_000_000]})
    shepherd._tell({"over": ["y"]})

    assert shepherd._agents == {}
    received = b""
    while data := here.recv(65536):
        received += data
    here.close()
    assert b"y" not in received


def test_what_an_agent_said_last_is_heard_after_it_let_go() -> None:
    """News that can no longer be told must not cost the order that was sent before."""
    here, there = socket.socketpair()
    shepherd = Shepherd.__new__(Shepherd)
    shepherd._agents = {there.fileno(): (there, FrameReader())}
    here.sendall(frame({"retire": True}))
    here.close()

    shepherd._tell({"over": ["x"]})

    assert list(FrameReader().feed(there.recv(65536))) == [{"retire": True}]
    there.close()


def test_what_is_no_message_ends_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch loop then finds a shepherd anew instead of stumbling over the same bytes."""
    here, there = socket.socketpair()
    monkeypatch.setattr(ShepherdClient, "_connect", lambda _self: here)
    client = shepherd_client.ShepherdClient(tmp_path)

    there.sendall(frame({"over": []})[:4] + b"not json at")

    told = client.receive()
    client.close()
    there.close()

    assert told is None
