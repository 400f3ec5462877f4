"""An agent that speaks `/agent/v1` over the test client: for tests of the agents' API.

site = Wire.enrolled(api)                 # a compute resource with one agent and its session
experiment = site.submit(sweep("1..3"))
lease = site.claim(1)["leases"][0]
site.report(completed(lease))
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from itertools import count
from typing import Any, cast

from flask.testing import FlaskClient

from airavata_scheduler.functions.enrolment import new_enrolment_token
from airavata_scheduler.models import flow, outbox
from airavata_scheduler.models.database import now_ms
from airavata_scheduler.models.ids import new_id, secret_digest
from airavata_scheduler.models.tables import ComputeResource
from tests.api import Answered, Api, LoggedIn

BASE = "/agent/v1"
CAPABILITIES = {
    "cpu": 64,
    "ram_mb": 65_536,
    "gpu": 0,
    "disk_mb": 100_000,
    "python": "3.11.7",
    "executors": ["process"],
    "features": [],
}


@dataclass(kw_only=True)
class Wire:
    """One agent: its secret, its token, its session."""

    api: Api
    client: FlaskClient
    owner: LoggedIn
    compute_id: str
    compute: str
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    agent_id: str = ""
    token: str = ""
    session_id: str = ""
    seq: count[int] = field(default_factory=lambda: count(1))
    beats: count[int] = field(default_factory=lambda: count(1))

    @classmethod
    def site(cls, api: Api, name: str = "cluster", owner: LoggedIn | None = None) -> Wire:
        """A compute resource for everybody, and an agent that is not enrolled yet."""
        owner = owner or api.admin()
        compute_id, now = new_id(), now_ms()
        ComputeResource.insert(
            id=compute_id,
            name=name,
            kind="BARE_METAL",
            owner_id=owner.id,
            limits={},
            timers={},
            created_at=now,
            updated_at=now,
        ).execute()
        outbox.resource_changed(("compute_resource", compute_id), owner.id, None)
        return cls(
            api=api,
            client=api.app.test_client(),
            owner=owner,
            compute_id=compute_id,
            compute=name,
        )

    @classmethod
    def enrolled(cls, api: Api, name: str = "cluster", owner: LoggedIn | None = None) -> Wire:
        """The same, enrolled and with a session."""
        wire = cls.site(api, name, owner)
        answer = wire.enroll(wire.new_token())
        assert answer.status_code == 201, answer.text
        wire.log_in()
        wire.open_session()
        return wire

    def beside(self) -> Wire:
        """Another enrolled agent of the same compute resource, with a session of its own."""
        other = Wire(
            api=self.api,
            client=self.api.app.test_client(),
            owner=self.owner,
            compute_id=self.compute_id,
            compute=self.compute,
        )
        assert other.enroll(other.new_token()).status_code == 201
        other.log_in()
        other.open_session()
        return other

    def new_token(self, **more: Any) -> str:
        """An enrolment token of the compute resource."""
        return new_enrolment_token(self.compute_id, created_by=self.owner.id, **more).token

    def enroll(self, token: str | None, **more: Any) -> Answered:
        """POST /enroll; remembers the agent's id."""
        body = {
            "token": token,
            "name": "login01",
            "compute": self.compute,
            "secret_hash": secret_digest(self.secret),
            "host": {"hostname": "login01", "user": "ada", "os": "Linux", "python": "3.11.7"},
            "version": "0.1.0",
            **more,
        }
        answer = cast("Answered", self.client.post(f"{BASE}/enroll", json=body))
        if answer.status_code == 201:
            self.agent_id = answer.json["agent_id"]
        return answer

    def ask_token(self, secret: str | None = None) -> Answered:
        """POST /token."""
        body = {"agent_id": self.agent_id, "secret": secret or self.secret}
        return cast("Answered", self.client.post(f"{BASE}/token", json=body))

    def log_in(self) -> None:
        """Get an access token."""
        answer = self.ask_token()
        assert answer.status_code == 200, answer.text
        self.token = answer.json["access_token"]

    def call(self, method: str, path: str, json: Any = None, **kwargs: Any) -> Answered:
        """One call with the token and the session."""
        headers = {"Authorization": f"Bearer {self.token}", **kwargs.pop("headers", {})}
        if self.session_id:
            headers.setdefault("X-Agent-Session", self.session_id)
        if json is not None:
            kwargs["json"] = json
        path = path if path.startswith(BASE) else BASE + path
        return cast("Answered", self.client.open(path, method=method, headers=headers, **kwargs))

    def ok(self, method: str, path: str, json: Any = None, **kwargs: Any) -> dict[str, Any]:
        """The same; the JSON of an answer that must be a success."""
        answer = self.call(method, path, json, **kwargs)
        assert answer.status_code < 300, answer.text
        found: dict[str, Any] = answer.json
        return found

    def session_body(self, **more: Any) -> dict[str, Any]:
        """The body of a new session."""
        return {
            "boot_id": "boot-1",
            "state_folder_id": "folder-1",
            "version": "0.1.0",
            "capabilities": CAPABILITIES,
            "policy": {},
            "mode": "normal",
            "unresolved_claims": [],
            "leases": [],
            **more,
        }

    def open_session(self, **more: Any) -> dict[str, Any]:
        """POST /session; remembers the session."""
        self.session_id = ""
        answer = self.ok("POST", "/session", self.session_body(**more))
        self.session_id = answer["session_id"]
        return answer

    def claim_body(self, most: int, wait_s: float = 0.0, **more: Any) -> dict[str, Any]:
        """The body of a new claim."""
        number = next(self.seq)
        free = {"cpu": 64, "ram_mb": 65_536, "gpu": 0, "disk_mb": 100_000}
        body = {"claim_id": secrets.token_hex(16), "seq": number, "max": most, "free": free}
        return {**body, "wait_s": wait_s, **more}

    def claim(self, most: int, wait_s: float = 0.0, **more: Any) -> dict[str, Any]:
        """POST /leases/claim."""
        return self.ok("POST", "/leases/claim", self.claim_body(most, wait_s, **more))

    def start(self, *leases: str) -> list[dict[str, Any]]:
        """POST /leases/start; the items."""
        items: list[dict[str, Any]] = self.ok("POST", "/leases/start", {"leases": list(leases)})[
            "items"
        ]
        return items

    def heartbeat(self, **more: Any) -> dict[str, Any]:
        """POST /heartbeat."""
        body = {"seq": next(self.beats), "epoch": None, "deltas": [], "full": None, **more}
        return self.ok("POST", "/heartbeat", body)

    def report(self, *items: Any, claim: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """POST /reports; the verdicts' items."""
        body = {"items": list(items), "claim": claim}
        found: list[dict[str, Any]] = self.ok("POST", "/reports", body)["items"]
        return found

    def put_artifact(self, lease: str, output: str, path: str, data: bytes) -> Answered:
        """PUT one output file."""
        return self.call(
            "PUT",
            f"/leases/{lease}/artifacts",
            query_string={"output": output, "path": path},
            data=data,
            headers={"Content-Digest": digest_header(data)},
        )

    def patch_log(
        self, lease: str, offset: int, data: bytes, stream: str = "stdout", **headers: str
    ) -> Answered:
        """PATCH one chunk of a stream."""
        said = {
            "Content-Range": f"bytes {offset}-{offset + len(data) - 1}/*",
            "Content-Digest": digest_header(data),
            **headers,
        }
        return self.call("PATCH", f"/leases/{lease}/log/{stream}", data=data, headers=said)

    def submit(self, document: dict[str, Any], user: LoggedIn | None = None) -> str:
        """Submit an experiment into the project `spine` of the owner, and run what is due."""
        user = user or self.owner
        if user.get("/projects/spine").status_code == 404:
            self.api.project(user)
        answer = user.post(
            "/experiments",
            {"project": "spine", "document": document, "submit": True},
        )
        assert answer.status_code == 201, answer.text
        settle()
        experiment: str = answer.json["id"]
        return experiment


def settle(rounds: int = 50) -> None:
    """Run the background jobs until nothing is due."""
    for _ in range(rounds):
        due = flow.due_work()
        if not due:
            return
        for job, identity in due:
            getattr(flow, job)(identity)
    raise AssertionError(f"background work does not end: {due}")


def digest_header(data: bytes) -> str:
    """The Content-Digest header of some bytes."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def completed(lease: dict[str, Any] | str, **more: Any) -> dict[str, Any]:
    """A report item of success."""
    name = lease if isinstance(lease, str) else lease["lease"]
    return {
        "lease": name,
        "outcome": "completed",
        "failure": None,
        "exit_code": 0,
        "signal": None,
        "duration_s": 0.5,
        "age_s": 0.0,
        "usage": {"cpu_s": 0.1, "max_rss_kb": 1000},
        "result": None,
        "logs": {},
        "artifacts": [],
        **more,
    }


def artifact_item(output: str, path: str, data: bytes) -> dict[str, Any]:
    """What a report says of one uploaded file."""
    return {
        "output": output,
        "path": path,
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
