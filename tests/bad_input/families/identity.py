"""Families 60 to 65: tokens, other tenants' ids, members that are not the caller's to set."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from typing import Any

import jwt

from airavata_scheduler.models.ids import new_id
from tests.api import SECRET, Answered
from tests.bad_input.case import Case
from tests.bad_input.world import World
from tests.work import sweep


def _forged(header: Mapping[str, Any], **claims: Any) -> str:
    """A token signed with the server's own secret, whose header or claims are not ours."""
    said = {
        "iss": "airavata-scheduler",
        "aud": "user",
        "typ": "access",
        "sub": new_id(),
        "sid": new_id(),
        "iat": int(time.time()),
        "exp": int(time.time()) + 600,
        **claims,
    }
    return jwt.encode(said, SECRET, algorithm="HS256", headers=dict(header))


def _unsigned(algorithm: str) -> str:
    parts = ({"alg": algorithm, "typ": "JWT"}, {"sub": new_id(), "aud": "user"})
    written = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    return b".".join([*written, b""]).decode()


TOKENS: Mapping[str, tuple[str, str]] = {
    "algorithm none": (_unsigned("none"), "token_invalid"),
    "algorithm NONE": (_unsigned("NONE"), "token_invalid"),
    "kid as a path": (_forged({"kid": "../../dev/null"}), "login_ended"),
    "kid as SQL": (_forged({"kid": "x' UNION SELECT 1 --"}), "login_ended"),
    "kid as an address": (_forged({"kid": "https://evil.example/key"}), "login_ended"),
    "jku": (_forged({"jku": "https://evil.example/jwks"}), "login_ended"),
    "x5u": (_forged({"x5u": "https://evil.example/cert"}), "login_ended"),
    "audience agent": (_forged({}, aud="agent"), "token_invalid"),
    "several audiences": (_forged({}, aud=["agent"]), "token_invalid"),
    "another issuer": (_forged({}, iss="https://evil.example"), "token_invalid"),
    "another type": (_forged({}, typ="refresh"), "token_invalid"),
    "end as text": (_forged({}, exp="9999999999"), "token_invalid"),
    "end as fraction": (_forged({}, exp=time.time() + 600.5), "token_invalid"),
    "an end that no clock has": (_forged({}, exp=10**20), "login_ended"),
    "subject as SQL": (_forged({}, sub="' OR 1=1 --"), "token_invalid"),
    "no token": ("x", "token_invalid"),
    "accents": ("t\u00f6ken", "token_invalid"),
    "5,000 characters": ("x" * 5000, "token_invalid"),
    "an access token that is none": ("aat_" + "x" * 40, "token_ended"),
    "an access token of 8,000 characters": ("aat_" + "x" * 8000, "token_invalid"),
}


def _at_agents_api(name: str, token: str) -> Case:
    return Case(
        family=60,
        name=f"agents' API: {name}",
        send="agent POST /heartbeat",
        json={"seq": 1},
        headers={"Authorization": f"Bearer {token}"},
        status=401,
        code="token_invalid",
    )


def _foreign(name: str, send: str, code: str, status: int = 404, **rest: Any) -> Case:
    """eve names what is ada's; it is not there for her."""
    return Case(family=62, name=name, send=f"eve {send}", status=status, code=code, **rest)


def _mass(name: str, send: str, body: Mapping[str, Any], field: str) -> Case:
    return Case(family=63, name=name, send=send, json=dict(body), code="unknown_field", field=field)


def _is_not_theirs(world: World, answer: Answered) -> None:
    """Neither started nor ended by somebody who does not hold it."""
    assert answer.json["items"][0]["verdict"] in {"gone", "superseded", "rejected"}
    assert world.ada.get(f"/tasks/{world.places['task']}").json["state"] in {"LEASED", "RUNNING"}


def _tells_nothing(world: World, answer: Answered) -> None:
    """Neither the task's state nor whether it is there."""
    place = world.places["lease"]
    invented = world.other_agent.call("GET", f"/leases/{place[:-32]}{'0' * 32}").json
    assert {**answer.json, "lease": ""} == {**invented, "lease": ""}
    assert answer.json["state"] is None


def _is_new(world: World, answer: Answered) -> None:
    """The same key of somebody else is another key."""
    del world
    assert "Idempotency-Replayed" not in answer.headers


_EXPERIMENT = {"project": "spine", "document": sweep()}

CASES = (
    *(
        Case(family=60, name=name, send="nobody GET /users/me",
             headers={"Authorization": f"Bearer {token}"}, status=401, code=code)
        for name, (token, code) in TOKENS.items()
    ),
    *(
        Case(family=60, name=f"scheme {scheme}", send="nobody GET /users/me",
             headers={"Authorization": f"{scheme} eA=="}, status=401, code="unauthenticated")
        for scheme in ("Basic", "Negotiate", "bearer,Bearer")
    ),
    *(_at_agents_api(name, token) for name, (token, _) in TOKENS.items() if name != "accents"),
    *(
        Case(family=61, name=f"refresh by {name}", send="nobody POST /auth/refresh",
             json={"refresh_token": text}, status=401, code="refresh_invalid")
        for name, text in {"a word": "x", "dots": "a.b.c", "an id and dots": f"{new_id()}.x.y",
                           "accents": "é.é.é", "a JWT": _forged({})}.items()
    ),
    Case(family=61, name="refresh by 5,000 characters", send="nobody POST /auth/refresh",
         json={"refresh_token": "x." * 2500}, code="invalid_string_too_long",
         field="refresh_token"),
    Case(family=61, name="refresh by a number", send="nobody POST /auth/refresh",
         json={"refresh_token": 5}, code="invalid_string_type", field="refresh_token"),
    _foreign("in the path", "GET /experiments/{experiment}", "experiment_not_found"),
    _foreign("by a part of the id", "GET /tasks/{task}/logs/stdout", "task_not_found"),
    _foreign("to cancel", "POST /experiments/{experiment}/cancel", "experiment_not_found",
             json={}),
    _foreign("in the body", "POST /experiments", "project_not_found", json=_EXPERIMENT),
    _foreign("in a filter", "GET /experiments?project=spine", "project_not_found"),
    _foreign("as an owner in a filter", "GET /experiments?owner=ada", "user_not_found"),
    _foreign("in a batch", "POST /calls/results", "task_not_found", json={"ids": ["{task}"]}),
    _foreign("as a member's project", "POST /projects/spine/members", "project_not_found",
             json={"user": "eve", "role": "owner"}),
    _foreign("by the function of another project", "POST /functions/heat/calls",
             "function_not_found", json={"arguments": {"SEED": 1}}),
    _foreign("in an audit's filter", "GET /audit?project=spine", "project_not_found"),
    Case(family=62, name="an agent's call for another agent's lease",
         send="other_agent GET /leases/{lease}", status=200, holds=_tells_nothing),
    Case(family=62, name="an upload for another agent's lease",
         send="other_agent PUT /leases/{lease}/artifacts", data=b"x",
         query={"output": "RESULT", "path": "r.csv"}, status=404, code="lease_unknown"),
    Case(family=62, name="a start of another agent's lease", send="other_agent POST /leases/start",
         json={"leases": ["{lease}"]}, status=200, holds=_is_not_theirs),
    Case(family=62, name="a report of another agent's lease", send="other_agent POST /reports",
         json={"items": [{"lease": "{lease}", "outcome": "completed"}]}, status=200,
         holds=_is_not_theirs),
    _mass("state of an experiment", "ada POST /experiments",
          {**_EXPERIMENT, "state": "COMPLETED"}, "state"),
    _mass("owner of an experiment", "ada POST /experiments", {**_EXPERIMENT, "owner_id": "x"},
          "owner_id"),
    _mass("owner of a project", "ada POST /projects", {"name": "x", "owner_id": "x"}, "owner_id"),
    _mass("version of a project", "ada PATCH /projects/spine", {"version": 9}, "version"),
    _mass("administrator", "ada PATCH /users/me", {"is_admin": True}, "is_admin"),
    _mass("one's own state", "ada PATCH /users/me", {"state": "active"}, "state"),
    _mass("id of a group", "ada POST /groups", {"name": "x", "id": new_id()}, "id"),
    _mass("priority of a call's state", "ada POST /functions/heat/calls",
          {"arguments": {"SEED": 1}, "state": "COMPLETED"}, "state"),
    _mass("lease of a call", "ada POST /functions/heat/calls",
          {"arguments": {"SEED": 1}, "lease_id": "x"}, "lease_id"),
    _mass("creator of an access token", "ada POST /users/me/tokens",
          {"name": "x", "scopes": ["read"], "user_id": "x"}, "user_id"),
    _mass("agent's id at enrolment", "agent POST /enroll",
          {"name": "x", "secret_hash": "0" * 64, "agent_id": "x"}, "agent_id"),
    _mass("agent's state at enrolment", "agent POST /enroll",
          {"name": "x", "secret_hash": "0" * 64, "state": "active"}, "state"),
    *(
        Case(family=64, name=f"cursor {name}", send="ada GET /projects", query={"cursor": text},
             code="invalid_cursor", field="cursor")
        for name, text in {
            "of zeros": "A" * 64, "of nothing": "", "of a smile": "😀", "too short": "AAAA",
            "padded": "A" * 63 + "====", "of 2,000 characters": "A" * 2000, "with blanks": "A A A",
        }.items()
    ),
    Case(family=64, name="cursor of 3,000 characters", send="ada GET /projects",
         query={"cursor": "A" * 3000}, code="invalid_string_too_long", field="cursor"),
    *(
        Case(family=64, name=f"If-Match {etag}", send="ada PATCH /projects/spine",
             headers={"If-Match": etag}, json={"description": "x"}, status=412,
             code="precondition_failed")
        for etag in ('"9"', 'W/"1"', '"0"', '"1\' OR 1=1"')
    ),
    *(
        Case(family=65, name=f"key {name}", send="ada POST /projects", json={"name": "keyed"},
             headers={"Idempotency-Key": key}, code="invalid_idempotency_key",
             field="Idempotency-Key")
        for name, key in {"empty": "", "of 129": "a" * 129, "with an accent": "\u00e9",
                          "with a tab": "a\tb"}.items()
    ),
    Case(family=65, name="a key", send="ada POST /projects", json={"name": "first"},
         headers={"Idempotency-Key": "k1"}, status=201, holds=_is_new),
    Case(family=65, name="the key of another user", send="eve POST /projects",
         json={"name": "evesfirst"}, headers={"Idempotency-Key": "k1"}, status=201, holds=_is_new),
)  # fmt: skip
