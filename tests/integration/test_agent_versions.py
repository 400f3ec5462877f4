"""Agents of other releases: two back and any newer work; an older one finishes what it has."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from airavata_scheduler.agent.version import VERSION
from airavata_scheduler.models import releases
from tests.api import Api
from tests.wire_agent import Wire, completed
from tests.work import sweep


@pytest.mark.parametrize(
    ("agent", "server", "works"),
    [
        ("1.4.0", "1.4.2", True),
        ("1.3.9", "1.4.0", True),
        ("1.2.0", "1.4.0", True),
        ("1.1.9", "1.4.0", False),
        ("1.9.0", "1.4.0", True),
        ("2.0.0", "1.4.0", True),
        ("0.9.0", "1.0.0", False),
        ("1.4", "1.4.0", True),
        ("1.4.0rc1", "1.4.0", True),
        ("", "1.4.0", False),
        ("new", "1.4.0", False),
        ("1.٤.0", "1.4.0", False),
    ],
)
def test_two_releases_back_and_any_newer_one_are_given_work(
    agent: str, server: str, works: bool
) -> None:
    """N-2 to N, and what is newer; nothing where the version cannot be read."""
    assert releases.may_claim(agent, server) is works


def test_all_parts_say_the_same_release() -> None:
    """The distribution, the server's rule and the agent's own version are one number."""
    assert version("airavata-scheduler") == releases.RELEASE == VERSION


def test_an_agent_that_is_too_old_finishes_upgrades_and_goes_on(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server moves on: no claim, but what is held ends; the upgraded agent is given work."""
    wire = Wire.enrolled(api)
    wire.submit(sweep("1..4"))
    held = [lease["lease"] for lease in wire.claim(3)["leases"]]
    wire.start(*held)
    monkeypatch.setattr(releases.may_claim, "__defaults__", ("0.4.0",))

    assert wire.heartbeat()["agent"]["upgrade"] is True
    assert wire.claim(1)["leases"] == []
    listed = wire.owner.get("/agents").json["items"][0]
    assert (listed["version"], listed["needs_upgrade"]) == ("0.1.0", True)
    assert [item["verdict"] for item in wire.report(completed(held[0]))] == ["accepted"]

    entries = [{"lease": lease, "phase": "running"} for lease in held[1:]]
    answer = wire.open_session(version="0.2.0", leases=entries)
    assert {item["verdict"] for item in answer["leases"]} == {"keep"}
    assert wire.heartbeat()["agent"]["upgrade"] is False
    rest = [lease["lease"] for lease in wire.claim(1)["leases"]]
    wire.start(*rest)
    assert {
        item["verdict"] for item in wire.report(*(completed(one) for one in held[1:] + rest))
    } == {"accepted"}
