"""An in-memory twin of `/agent/v1`: small, strict about fences, faulty on order.

Tasks are added by tests; each ends in at most one accepted result. Faults are scripted per path:
`lose` (the deed is done, the answer is not sent), `reset` (nothing is done, the line breaks),
`status` (a problem instead), `hold` (the answer waits until the test lets it go), `say` (nothing is
done, and the answer is a success with these bytes).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
_LEASE = re.compile(r"/leases/([^/]+)/(log|artifacts|inputs)(?:/([^/?]+))?")


class Problem(Exception):
    """An RFC 9457 answer."""

    def __init__(self, status: int, code: str, **headers: str) -> None:
        super().__init__(code)
        self.status, self.code, self.headers = status, code, headers


@dataclass
class Task:
    """One task; `lease` is its newest lease."""

    offer: Json
    spec: Json
    lease: str = ""
    attempt: int = 0
    claim_id: str = ""
    state: str = "queued"  # queued, leased, done
    cancelled: bool = False
    result: Json | None = None
    reports: list[Json] = field(default_factory=list)
    inputs: list[Json] = field(default_factory=list)


@dataclass
class Fault:
    """What happens to the next `times` calls whose path begins with `path`."""

    path: str
    kind: str
    times: int
    status: int = 503
    code: str = "unavailable"
    retry_after: str | None = None
    body: bytes = b""
    gate: threading.Event = field(default_factory=threading.Event)


class AgentApi:
    """The server, and what it remembers. Use as a context manager; `url` is its address."""

    def __init__(self) -> None:
        self.lock = threading.Condition(threading.RLock())
        self.tasks: dict[str, Task] = {}
        self.blobs: dict[str, bytes] = {}
        self.files: dict[tuple[str, str, str], bytes] = {}
        self.logs: dict[tuple[str, str], bytes] = {}
        self.input_data: dict[str, bytes] = {}
        self.calls: list[tuple[str, str, Json]] = []
        self.faults: list[Fault] = []
        self.secret_hashes: list[str] = []
        self.next_hash: str | None = None
        self.tokens: set[str] = set()
        self.enrolment_token = "ase_" + secrets.token_hex(16)
        self.state = "active"
        self.session_id = ""
        self.ended_sessions: set[str] = set()
        self.sessions: list[Json] = []
        self.beats: list[Json] = []
        self.released: list[str] = []
        self.epoch = "e1"
        self.heartbeat_s = 1.0
        self.orders: Json = {"drain": False, "pause": False, "rotate": False, "log_level": None}
        self.verdicts: dict[str, str] = {}
        self.attention = False
        self.before_call: Callable[[str, Json], None] = lambda _path, _body: None
        self._last_seq = -1
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> AgentApi:
        """Listen on a free port of the loopback."""
        api = self

        class Handler(_Handler):
            twin = api

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        assert self._server is not None
        # Without the lock: a handler that waits for the gate does not hold it.
        for fault in self.faults:
            fault.gate.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """http://127.0.0.1:PORT"""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    # What tests do

    def add(self, script: str | None = None, **more: Any) -> str:
        """Queue one task; its id. `more`: spec keys, environment, arguments, timeout_s, gate."""
        task_id = str(uuid.uuid4())
        spec: Json = {
            "kind": "script" if script is not None else "python",
            "script": script,
            "outputs": more.pop("outputs", {}),
            "cpu": more.pop("cpu", 1),
            "ram_mb": more.pop("ram_mb", 0),
            "gpu": more.pop("gpu", 0),
            "disk_mb": 0,
            "environment": more.pop("spec_environment", {}),
            "python": more.pop("python", None),
        }
        inputs = more.pop("inputs", [])
        key = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
        offer = {
            "task_id": task_id,
            "experiment_id": str(uuid.uuid4()),
            "name": f"test[{len(self.tasks)}]",
            "index": len(self.tasks),
            "gate": more.pop("gate", "open"),
            "spec": key,
            "environment": more.pop("environment", {}),
            "arguments": more.pop("arguments", None),
            "timeout_s": more.pop("timeout_s", None),
        }
        assert not more, more
        with self.lock:
            self.tasks[task_id] = Task(offer, spec, inputs=inputs)
            self.lock.notify_all()
        return task_id

    def cancel(self, task_id: str) -> None:
        """A user cancels."""
        with self.lock:
            task = self.tasks[task_id]
            task.cancelled = True
            self.verdicts[task.lease] = "cancel"
            self.attention = True
            self.lock.notify_all()

    def requeue(self, task_id: str) -> None:
        """Take a task away from the agent: its lease expired."""
        with self.lock:
            task = self.tasks[task_id]
            self.verdicts[task.lease] = "superseded"
            task.state, task.lease = "queued", ""
            task.offer = {**task.offer, "gate": "never"}
            self.attention = True
            self.lock.notify_all()

    def fault(self, path: str, kind: str, times: int = 1, **more: Any) -> Fault:
        """Script a fault."""
        found = Fault(path, kind, times, **more)
        with self.lock:
            self.faults.append(found)
        return found

    def result(self, task_id: str) -> Json | None:
        """The accepted result."""
        return self.tasks[task_id].result

    def done(self, *task_ids: str) -> bool:
        """Whether all of them (default: every task) have a result."""
        with self.lock:
            return all(self.tasks[task_id].result for task_id in task_ids or tuple(self.tasks))

    def bodies(self, path: str) -> list[Json]:
        """The bodies of the calls of one path."""
        with self.lock:
            return [body for _, called, body in self.calls if called == path]

    # What the server does

    def answer(
        self, method: str, path: str, query: Json, body: Any, headers: Any
    ) -> tuple[int, Any]:
        """One call."""
        if path in ("/enroll", "/token"):
            return 200, self._enroll(body) if path == "/enroll" else self._token(body)
        if headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            raise Problem(401, "token_expired")
        if self.state == "revoked":
            raise Problem(401, "agent_revoked")
        if path not in ("/session", "/rotate", "/unenroll"):
            self._check_session(headers)
        deeds: dict[str, Callable[[Json], Json]] = {
            "/session": self._session,
            "/leases/claim": self._claim,
            "/leases/start": self._start,
            "/heartbeat": self._heartbeat,
            "/reports": self._reports,
            "/leases/release": self._release,
            "/rotate": self._rotate,
            "/unenroll": self._unenroll,
            "/session/end": lambda _body: {"ended": True},
        }
        if path in deeds:
            return 200, deeds[path](body)
        return self._bytes(path, query, body, headers)

    def _bytes(self, path: str, query: Json, body: bytes, headers: Any) -> tuple[int, Any]:
        if path.startswith("/blobs/"):
            return 200, self.blobs[path.removeprefix("/blobs/")]
        match = _LEASE.match(path)
        if match is None:
            raise Problem(404, "not_found")
        lease, what, rest = match.groups()
        if what == "inputs":
            return 200, self.input_data[str(rest)]
        if what == "log":
            return self._log(lease, str(rest), body, headers)
        return self._artifact(lease, query, body, headers)

    def _check_session(self, headers: Any) -> None:
        named = headers.get("X-Agent-Session", "")
        if named in self.ended_sessions:
            raise Problem(409, "session_expired")
        if named != self.session_id:
            raise Problem(409, "session_superseded")

    def _enroll(self, body: Json) -> Json:
        if body["token"] is not None and body["token"] != self.enrolment_token:
            raise Problem(401, "token_unknown")
        if self.secret_hashes and body["secret_hash"] not in self.secret_hashes:
            raise Problem(409, "token_used")
        self.secret_hashes = [body["secret_hash"]]
        answer = {"agent_id": "agent-1", "name": body["name"], "state": self.state}
        answer["compute"] = {"id": "c1", "name": body["compute"] or "laptop", "kind": "BARE_METAL"}
        if body["token"] is None:
            self.state = answer["state"] = "pending"
            answer["approval_code"] = "ABCD"
        return answer

    def _token(self, body: Json) -> Json:
        digest = hashlib.sha256(body["secret"].encode()).hexdigest()
        if self.state == "pending":
            raise Problem(403, "agent_pending")
        if self.state == "revoked":
            raise Problem(401, "agent_revoked")
        if digest == self.next_hash:
            self.secret_hashes, self.next_hash = [digest], None
        if digest not in self.secret_hashes:
            raise Problem(401, "agent_unknown")
        token = secrets.token_hex(16)
        self.tokens.add(token)
        return {"access_token": token, "expires_in": 600, "state": self.state}

    def _session(self, body: Json) -> Json:
        self.sessions.append(body)
        self.session_id = secrets.token_hex(8)
        self._last_seq = -1
        held = {line["lease"] for line in body["leases"]}
        for task in self.tasks.values():
            if task.state == "leased" and task.lease not in held:
                task.state = "queued"
        return {
            "session_id": self.session_id,
            "epoch": self.epoch,
            "server_time_ms": int(time.time() * 1000),
            "timers": {"heartbeat_s": self.heartbeat_s, "poll_ceiling_s": 5.0},
            "leases": [{"lease": lease, "verdict": self._hold(lease)} for lease in held],
            "compute": {"id": "c1", "name": "laptop"},
        }

    def _hold(self, lease: str) -> str:
        task = self._task_of(lease)
        if task is None:
            return "gone"
        if task.result is not None:
            return "report_again" if task.result["lease"] == lease else "superseded"
        if task.lease != lease:
            return "superseded"
        return self.verdicts.get(lease, "keep")

    def _task_of(self, lease: str) -> Task | None:
        return self.tasks.get(lease.partition(".")[0])

    def _claim(self, body: Json) -> Json:
        deadline = time.monotonic() + min(float(body["wait_s"]), 5.0)
        session = self.session_id
        while True:
            granted = self._replayed(body["claim_id"]) or self._granted(body)
            left = deadline - time.monotonic()
            if granted or self.attention or left <= 0 or self.session_id != session:
                break
            self.lock.wait(left)
        attention, self.attention = self.attention, False
        return {
            "epoch": self.epoch,
            "leases": [{**t.offer, "lease": t.lease, "attempt": t.attempt} for t in granted],
            "specs": {t.offer["spec"]: t.spec for t in granted},
            "dead": [],
            "attention": attention,
            "poll_s": 0,
        }

    def _replayed(self, claim_id: str) -> list[Task]:
        return [t for t in self.tasks.values() if t.claim_id == claim_id and t.state == "leased"]

    def _granted(self, body: Json) -> list[Task]:
        if body["max"] == 0 or body["seq"] < self._last_seq:
            return []
        self._last_seq = body["seq"]
        found: list[Task] = []
        for task in self.tasks.values():
            if len(found) == body["max"]:
                break
            fits = task.spec["cpu"] <= body["free"]["cpu"]
            if task.state == "queued" and fits and task.offer["gate"] != "never":
                task.state, task.claim_id = "leased", body["claim_id"]
                task.attempt += 1
                task.lease = f"{task.offer['task_id']}.{task.attempt}.{secrets.token_hex(16)}"
                found.append(task)
        return found

    def _start(self, body: Json) -> Json:
        items = []
        for lease in body["leases"]:
            verdict = self._hold(lease)
            task = self._task_of(lease)
            item: Json = {"lease": lease, "verdict": "ok" if verdict == "keep" else verdict}
            if task is not None and verdict == "keep":
                item["inputs"] = task.inputs
                item["parameters"] = {
                    i["parameter"]: i["path"] for i in task.inputs if "parameter" in i
                }
            items.append(item)
        return {"items": items}

    def _heartbeat(self, body: Json) -> Json:
        self.beats.append(body)
        listed = [line["lease"] for line in body["full"] or ()]
        verdicts = dict(self.verdicts)
        verdicts.update({lease: self._hold(lease) for lease in listed})
        return {
            "epoch": self.epoch,
            "server_time_ms": 0,
            "interval_s": self.heartbeat_s,
            "want_full": False,
            "leases": [{"lease": k, "verdict": v} for k, v in verdicts.items() if v != "keep"],
            "agent": self.orders,
        }

    def _reports(self, body: Json) -> Json:
        items = [{"lease": i["lease"], "verdict": self._report(i)} for i in body["items"]]
        claim = None if body["claim"] is None else self._claim({**body["claim"], "wait_s": 0})
        self.lock.notify_all()
        return {"items": items, "epoch": self.epoch, "claim": claim}

    def _report(self, item: Json) -> str:
        task = self._task_of(item["lease"])
        if task is None:
            return "gone"
        task.reports.append(item)
        if task.result is not None:
            same = task.result["lease"] == item["lease"]
            return "duplicate" if same else "superseded"
        if item["lease"] != task.lease:
            return "superseded"
        self.verdicts.pop(task.lease, None)
        if item["outcome"] == "lost":
            task.state = "queued"
        else:
            task.result, task.state = item, "done"
        return "accepted"

    def _release(self, body: Json) -> Json:
        for lease in body["leases"]:
            task = self._task_of(lease)
            if task is not None and task.lease == lease:
                task.state = "queued"
                self.released.append(lease)
        return {"items": [{"lease": lease, "verdict": "released"} for lease in body["leases"]]}

    def _rotate(self, body: Json) -> Json:
        self.next_hash = body["new_secret_hash"]
        return {}

    def _unenroll(self, _body: Json) -> Json:
        self.state = "revoked"
        return {}

    def _log(self, lease: str, stream: str, body: bytes, headers: Any) -> tuple[int, Json]:
        _check_digest(body, headers)
        match = re.fullmatch(r"bytes (\d+)-(\d+)/\*", headers["Content-Range"])
        assert match is not None
        start = int(match[1])
        known = self.logs.get((lease, stream), b"")
        if start > len(known):
            return 416, {"offset": len(known)}
        if start + len(body) > len(known):
            known = known[:start] + body
        self.logs[lease, stream] = known
        return 202, {"offset": len(known)}

    def _artifact(self, lease: str, query: Json, body: bytes, headers: Any) -> tuple[int, Json]:
        _check_digest(body, headers)
        key = (lease, query["output"][0], query["path"][0])
        known = self.files.get(key) == body
        self.files[key] = body
        document = {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        return (200 if known else 201), document


def _check_digest(body: bytes, headers: Any) -> None:
    expected = base64.b64encode(hashlib.sha256(body).digest()).decode()
    if headers.get("Content-Digest") != f"sha-256=:{expected}:":
        raise Problem(400, "digest_mismatch")


class _Handler(BaseHTTPRequestHandler):
    twin: AgentApi
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Silence."""

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if parts.path == "/api/v1/health":
            self._send(200, {"status": "ok"})
            return
        path = parts.path.removeprefix("/agent/v1")
        is_json = self.headers.get("Content-Type", "").startswith("application/json")
        body: Any = json.loads(raw or b"{}") if is_json else raw
        fault = self._fault(path)
        if fault is not None and fault.kind == "reset":
            self.close_connection = True
            return
        if fault is not None and fault.kind == "hold":
            fault.gate.wait(30)
        if fault is not None and fault.kind == "say":
            self._send(200, fault.body)
            return
        self.twin.before_call(path, body if isinstance(body, dict) else {})
        with self.twin.lock:
            self.twin.calls.append((self.command, path, body if isinstance(body, dict) else {}))
            try:
                if fault is not None and fault.kind == "status":
                    raise _scripted(fault)
                status, document = self.twin.answer(
                    self.command, path, parse_qs(parts.query), body, self.headers
                )
                headers: dict[str, str] = {}
            except Problem as problem:
                status, headers = problem.status, problem.headers
                document = {"status": status, "code": problem.code, "detail": problem.code}
        if fault is not None and fault.kind == "lose":
            self.close_connection = True
            return
        self._send(status, document, headers)

    def _fault(self, path: str) -> Fault | None:
        with self.twin.lock:
            for fault in self.twin.faults:
                if fault.times and path.startswith(fault.path):
                    fault.times -= 1
                    return fault
        return None

    def _send(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        kind = "application/json" if status < 400 or status == 416 else "application/problem+json"
        try:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            for name, value in (headers or {}).items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(data)
            self.wfile.flush()
        except OSError:
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = _serve  # noqa: N815  the server's own names


def _scripted(fault: Fault) -> Problem:
    more = {} if fault.retry_after is None else {"Retry_After": fault.retry_after}
    return Problem(fault.status, fault.code, **more)
