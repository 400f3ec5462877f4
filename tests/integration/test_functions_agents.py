"""Agents as users see them: enrolment tokens, approval, drain, resume, revoke, presence."""

from __future__ import annotations

from typing import Any

import pytest

from airavata_scheduler.models.database import now_ms, transaction
from airavata_scheduler.models.ids import new_id, secret_digest
from airavata_scheduler.models.tables import Agent, AgentSession, EnrolmentToken
from tests.api import Api, LoggedIn, refill


@pytest.fixture
def admin(api: Api) -> LoggedIn:
    """An administrator with one shared compute resource called `box`."""
    found = api.admin("root")
    answer = found.post("/compute-resources", {"name": "box", "kind": "BARE_METAL"})
    assert answer.status_code == 201
    return found


def compute_id(admin: LoggedIn, name: str = "box") -> str:
    """The id of a compute resource."""
    found: str = admin.get(f"/compute-resources/{name}").json["id"]
    return found


def agent(compute: str, name: str = "node1", **columns: Any) -> str:
    """The row of an agent; its id."""
    agent_id, now = new_id(), now_ms()
    Agent.insert(
        **{
            "id": agent_id,
            "compute_id": compute,
            "name": name,
            "state": "active",
            "secret_hash": "0" * 64,
            "secret_set_at": now,
            "host": {"hostname": name},
            "capabilities": {"cpu": 4},
            "policy": {},
            "created_at": now,
            **columns,
        }
    ).execute()
    refill()
    return agent_id


def session(agent_id: str, compute: str, *, age_s: int = 0, **columns: Any) -> str:
    """A session of the agent, last heard of `age_s` ago; its id."""
    session_id = new_id()
    with transaction():
        now = now_ms()
        AgentSession.insert(
            **{
                "id": session_id,
                "agent_id": agent_id,
                "compute_id": compute,
                "started_at": now,
                "heartbeat_at": now - age_s * 1000,
                "free": {"cpu": 3, "ram_mb": 1000},
                "held": 1,
                **columns,
            }
        ).execute()
        Agent.update(session_id=session_id).where(Agent.id == agent_id).execute()
    return session_id


def test_an_enrolment_token_is_shown_once_and_stored_hashed(admin: LoggedIn) -> None:
    """It has its prefix, ends in fifteen minutes, and its line hands it over by the environment."""
    answer = admin.post("/compute-resources/box/enrolment-tokens", {"agent_name": "node1"})

    assert answer.status_code == 201
    token, line = answer.json["token"], answer.json["install_line"]
    assert token.startswith("ase_")
    row = EnrolmentToken.get()
    assert row.token_hash == secret_digest(token)
    assert row.expires_at - row.created_at == 15 * 60 * 1000
    assert row.agent_name == "node1"
    assert line == (
        "curl -fsSL http://localhost:8080/install.sh | "
        f"AIRAVATA_ENROLMENT_TOKEN={token} sh -s -- --resource box"
    )


def test_who_may_make_enrolment_tokens(api: Api, admin: LoggedIn) -> None:
    """Owners and administrators; a user of a shared resource may not."""
    ada = api.user("ada")
    api.project(ada)
    ada.post("/compute-resources", {"name": "mine", "kind": "SLURM", "project": "spine"})

    assert ada.post("/compute-resources/box/enrolment-tokens").status_code == 403
    assert ada.post("/compute-resources/mine/enrolment-tokens").status_code == 201
    assert admin.post("/compute-resources/mine/enrolment-tokens").status_code == 201


def test_presence_is_what_is_seen(admin: LoggedIn) -> None:
    """Online while it is heard of, unreachable after 90 s, offline after its session."""
    box = compute_id(admin)
    heard, silent, ended = agent(box, "heard"), agent(box, "silent"), agent(box, "ended")
    agent(box, "never")
    agent(box, "waits", state="pending", approval_code="AB12-CD34")
    session(heard, box)
    session(silent, box, age_s=100)
    session(ended, box, ended_at=now_ms())

    items = admin.get("/agents?compute=box").json["items"]

    found = {item["name"]: item["presence"] for item in items}
    assert found == {
        "heard": "online",
        "silent": "unreachable",
        "ended": "offline",
        "never": "offline",
        "waits": "pending",
    }
    status = admin.get("/compute-resources/box/status").json
    assert status["online"] is True
    assert status["agents"] == {"online": 1, "unreachable": 1, "offline": 2, "pending": 1}
    assert status["free"]["cpu"] == 3
    assert status["leases_held"] == 1


def test_secrets_and_codes_are_not_shown(admin: LoggedIn) -> None:
    """Neither the hash of a secret nor an approval code leaves by this API."""
    agent(compute_id(admin), state="pending", approval_code="AB12-CD34")

    text = admin.get("/agents").text

    assert "AB12" not in text
    assert "secret" not in text


def test_approval_takes_the_code(admin: LoggedIn) -> None:
    """A wrong code lets nobody in; the right one does, however it is typed; once."""
    agent_id = agent(compute_id(admin), state="pending", approval_code="AB12-CD34")

    wrong = admin.post("/agents/node1/approve", {"code": "AB12-CD35"})
    right = admin.post("/agents/node1/approve", {"code": "ab12 cd34"})
    again = admin.post(f"/agents/{agent_id}/approve", {"code": "AB12-CD34"})

    assert wrong.status_code == 422
    assert wrong.json["field"] == "code"
    assert right.json["state"] == "active"
    assert again.status_code == 409


def test_drain_resume_and_revoke(admin: LoggedIn) -> None:
    """Drain and resume may be repeated; a revoked agent stays out."""
    box = compute_id(admin)
    agent_id = agent(box)
    session(agent_id, box)

    def after(action: str) -> tuple[int, str]:
        answer = admin.post(f"/agents/node1/{action}")
        return answer.status_code, answer.json.get("presence", answer.json.get("code"))

    assert after("drain") == (200, "draining")
    assert after("drain") == (200, "draining")
    assert after("resume") == (200, "online")
    assert after("revoke") == (200, "revoked")
    assert after("resume") == (409, "agent_state")


def test_who_may_operate_agents(api: Api, admin: LoggedIn) -> None:
    """Users of a shared resource see its agents and may not touch them; a project's are hidden."""
    ada, eve = api.user("ada"), api.user("eve")
    api.project(ada)
    ada.post("/compute-resources", {"name": "mine", "kind": "SLURM", "project": "spine"})
    agent(compute_id(admin), "shared-node")
    agent(compute_id(ada, "mine"), "own-node")

    assert eve.get("/agents/shared-node").status_code == 200
    assert eve.post("/agents/shared-node/drain").status_code == 403
    assert eve.get("/agents/own-node").status_code == 404
    assert eve.post("/agents/own-node/drain").status_code == 404
    assert eve.get("/agents?compute=mine").status_code == 404
    assert ada.post("/agents/own-node/drain").status_code == 200
    assert [item["name"] for item in eve.get("/agents").json["items"]] == ["shared-node"]


def test_a_resource_with_agents_is_not_deleted(admin: LoggedIn) -> None:
    """Its record is needed; the answer says what to do instead."""
    agent(compute_id(admin))

    answer = admin.delete("/compute-resources/box")

    assert answer.status_code == 409
    assert answer.json["code"] == "resource_in_use"
    assert "disabled" in answer.json["hint"]
