"""Becoming an agent over HTTP: one-time tokens, secrets, rotation, revocation; on each database."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest

from airavata_scheduler.functions import agent_identity
from airavata_scheduler.models import database as db
from airavata_scheduler.models.database import now_ms
from airavata_scheduler.models.ids import new_id, secret_digest
from airavata_scheduler.models.tables import Agent, EnrolmentToken
from tests.api import Api
from tests.waiting import wait_until
from tests.wire_agent import BASE, Wire
from tests.work import sweep


def code(answer: Any) -> tuple[int, str]:
    """Status and problem code."""
    return answer.status_code, answer.json["code"]


def test_a_token_makes_one_agent(api: Api) -> None:
    """The same secret again gets the same agent (a lost answer); another secret gets nothing."""
    wire = Wire.site(api)
    token = wire.new_token()
    first, again = wire.enroll(token), wire.enroll(token)
    wire.secret = "another secret of another agent!"
    other = wire.enroll(token)

    assert (first.status_code, first.json) == (201, again.json)
    assert first.json["compute"] == {
        "id": wire.compute_id,
        "name": "cluster",
        "kind": "BARE_METAL",
    }
    assert first.json["state"] == "active"
    assert code(other) == (410, "enrolment_token_gone")


def test_tokens_that_do_not_count(api: Api) -> None:
    """An unknown token, an expired one, and one for another compute resource enrol nobody."""
    wire = Wire.site(api)
    expired = wire.new_token()
    EnrolmentToken.update(expires_at=now_ms()).where(
        EnrolmentToken.token_hash == secret_digest(expired)
    ).execute()

    assert code(wire.enroll("ase_" + "x" * 40)) == (404, "enrolment_token_unknown")
    assert code(wire.enroll(expired)) == (410, "enrolment_token_gone")
    assert code(wire.enroll(wire.new_token(), compute="elsewhere")) == (422, "compute_mismatch")
    assert Agent.select().count() == 0


def test_two_agents_of_one_host_name(api: Api) -> None:
    """Two users of a login node enrol with the same name: the second gets a number behind it."""
    wire = Wire.site(api)
    names = []
    for secret in ("a" * 32, "b" * 32):
        wire.secret = secret
        names.append(wire.enroll(wire.new_token()).json["name"])

    assert names == ["login01", "login01-2"]


def test_a_token_for_a_name_replaces_that_agent(api: Api) -> None:
    """A token bound to a name gives the agent of that name a new secret and ends the old one."""
    wire = Wire.site(api)
    old = wire.enroll(wire.new_token(agent_name="node7")).json
    wire.log_in()
    before, wire.secret = wire.token, "c" * 32
    new = wire.enroll(wire.new_token(agent_name="node7")).json
    wire.token = before

    assert (old["agent_id"], old["name"]) == (new["agent_id"], "node7")
    assert code(wire.call("POST", "/session", {})) == (401, "token_expired")


def test_without_a_token_an_administrator_approves(api: Api) -> None:
    """An agent without a token gets a code, may not work, and works once it was approved."""
    wire = Wire.site(api, owner=api.admin())
    answer = wire.enroll(None).json

    assert answer["state"] == "pending"
    assert len(answer["approval_code"]) == 8
    assert code(wire.ask_token()) == (403, "agent_pending")
    assert wire.enroll(None).json == answer, "asked again, the same agent waits"
    wire.owner.post(f"/agents/{wire.agent_id}/approve", {"code": answer["approval_code"]})
    assert wire.ask_token().json["state"] == "active"


def test_enrolling_in_vain(api: Api) -> None:
    """A malformed hash, an unknown resource, a control character in the name: each is named."""
    wire = Wire.site(api)

    assert wire.enroll(wire.new_token(), secret_hash="abc").json["field"] == "secret_hash"
    assert code(wire.enroll(None, compute="nowhere")) == (404, "compute_unknown")
    assert wire.enroll(None, name="evil\x1b[31m").json["field"] == "name"
    assert code(wire.enroll(None, compute=None)) == (422, "missing_field")


def test_only_its_own_secret_opens(api: Api) -> None:
    """A wrong secret and an unknown agent get one and the same answer."""
    wire = Wire.enrolled(api)
    wrong = wire.ask_token("x" * 40)
    wire.agent_id = new_id()
    unknown = wire.ask_token()
    wire.agent_id = "' OR 1=1 --"

    assert code(wrong) == code(unknown) == code(wire.ask_token()) == (401, "agent_unknown")


def test_rotation_is_crash_safe(api: Api) -> None:
    """Until the next secret is used the present one works; then the old one and its tokens end."""
    wire = Wire.enrolled(api)
    old_token, old_secret, new_secret = wire.token, wire.secret, "n" * 43
    wire.ok("POST", "/rotate", {"new_secret_hash": secret_digest(new_secret)})

    assert wire.ask_token().status_code == 200, "announced only: a crash here locks nobody out"
    assert wire.heartbeat()["agent"]["rotate"] is True
    wire.secret = new_secret
    assert wire.ask_token().status_code == 200
    assert wire.ask_token().status_code == 200
    assert code(wire.ask_token(old_secret)) == (401, "agent_unknown")
    assert code(wire.call("POST", "/heartbeat", {"seq": 9})) == (401, "token_expired")
    wire.token = old_token
    wire.log_in()
    assert wire.heartbeat(seq=99)["agent"]["rotate"] is False


def test_an_old_secret_is_to_be_rotated(api: Api) -> None:
    """After two thirds of thirty days the heartbeat asks for rotation."""
    wire = Wire.enrolled(api)
    Agent.update(secret_set_at=now_ms() - 21 * 24 * 3600 * 1000).execute()

    assert wire.heartbeat()["agent"]["rotate"] is True


def test_a_revoked_agent_is_out_at_its_next_call(api: Api) -> None:
    """Revocation needs no wake-up and no Redis: the next call and the next token are refused."""
    wire = Wire.enrolled(api)
    wire.submit(sweep("1..2"))
    lease = wire.claim(1)["leases"][0]
    answer = wire.owner.post(f"/agents/{wire.agent_id}/revoke")
    assert answer.status_code == 200, answer.text

    assert code(wire.call("POST", "/heartbeat", {"seq": 1})) == (401, "agent_revoked")
    assert code(wire.call("POST", "/reports", {"items": []})) == (401, "agent_revoked")
    assert code(wire.ask_token()) == (401, "agent_revoked")
    other = wire.beside()
    found = [other.claim(1)["leases"][0]["task_id"]]
    found += [
        one["task_id"]
        for one in wait_until(lambda: other.claim(1)["leases"], message="the lease's return")
    ]
    assert lease["task_id"] in found


def test_unenrolling_gives_work_back(api: Api) -> None:
    """An agent that leaves frees its leases at once and is refused from then on."""
    wire = Wire.enrolled(api)
    wire.submit(sweep("1..1"))
    assert len(wire.claim(1)["leases"]) == 1
    wire.ok("POST", "/unenroll", {})
    other = wire.beside()

    assert code(wire.ask_token()) == (401, "agent_revoked")
    assert wait_until(lambda: other.claim(1)["leases"], message="the lease's return")


def test_only_the_clock_of_the_database_ends_a_token(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day by which an API server is wrong changes nothing; ten minutes of the database's do."""
    wire = Wire.enrolled(api)
    claims = jwt.decode(wire.token, options={"verify_signature": False})
    with api.app.app_context():
        key = agent_identity._key()
    clock, day_ms = db.now_sql(), 86_400_000
    ahead = {**claims, "iat": claims["iat"] + 86_400, "exp": claims["exp"] + 86_400}

    wire.token = jwt.encode(ahead, key, algorithm="HS256")
    wire.heartbeat()
    monkeypatch.setitem(db.NOW_SQL, db.dialect(), f"({clock} - {day_ms})")
    wire.log_in()
    wire.heartbeat()
    monkeypatch.setitem(db.NOW_SQL, db.dialect(), f"({clock} - {day_ms} + 590000)")
    wire.heartbeat()
    monkeypatch.setitem(db.NOW_SQL, db.dialect(), f"({clock} - {day_ms} + 600000)")

    assert code(wire.call("POST", "/heartbeat", {"seq": 9})) == (401, "token_expired")


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_tokens_that_were_not_issued_for_agents(api: Api) -> None:
    """Forged, foreign and bent tokens open nothing: alg none, users' keys, wrong claims."""
    wire = Wire.enrolled(api)
    claims = jwt.decode(wire.token, options={"verify_signature": False})
    with api.app.app_context():
        key = agent_identity._key()
    users_key = api.config.jwt_secret_key

    def signed(using: Any = key, alg: str = "HS256", **changed: Any) -> str:
        return jwt.encode({**claims, **changed}, using, algorithm=alg)

    refused = [
        signed(None, "none"),
        signed(users_key),
        signed(key * 2, "HS512"),
        signed(aud="user"),
        signed(iss="somebody"),
        signed(typ="access"),
        signed(sub="x"),
        signed(ver="1"),
        signed(exp=str(int(time.time()) + 600)),
        wire.owner.token,
        wire.token[:-2],
        "x" * 5000,
        "a.b.c",
    ]

    for token in refused:
        wire.token = token or ""
        answer = wire.call("POST", "/heartbeat", {"seq": 1})
        assert answer.status_code == 401, token
        assert answer.json["code"] == "token_invalid", token
    for changed, expected in (
        ({"exp": int(time.time()) - 1}, "token_expired"),
        ({"ver": claims["ver"] + 1}, "token_expired"),
        ({"cmp": new_id()}, "token_expired"),
        ({"sub": new_id()}, "agent_unknown"),
    ):
        wire.token = signed(**changed)
        assert code(wire.call("POST", "/heartbeat", {"seq": 1})) == (401, expected)


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_an_agents_token_is_nothing_to_the_users_api(api: Api) -> None:
    """What an agent holds opens no route of users."""
    wire = Wire.enrolled(api)

    answer = wire.client.get("/api/v1/projects", headers={"Authorization": f"Bearer {wire.token}"})
    assert answer.status_code == 401


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_every_agent_route_needs_a_token(api: Api) -> None:
    """Routes of the agents' group that are not public answer 401 without a token."""
    public = {"/enroll", "/token", "/download", "/download.sha256", "/install.sh"}
    client = api.app.test_client()
    tried = 0
    for rule in api.app.url_map.iter_rules():
        if not rule.rule.startswith(BASE) or rule.rule.removeprefix(BASE) in public:
            continue
        address = rule.rule.replace("<lease>", "x").replace("<int:number>", "1")
        address = address.replace("<stream>", "stdout").replace("<sha256>", "0" * 64)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            assert client.open(address, method=method).status_code == 401, (method, address)
            tried += 1
    assert tried >= 14
