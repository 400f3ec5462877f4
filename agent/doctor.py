"""`doctor`: is this machine fit, can it reach the API? One line a check, with the fix."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airavata_scheduler.agent import processes
from airavata_scheduler.agent.api import Api
from airavata_scheduler.agent.faults import AgentFault, Refused
from airavata_scheduler.agent.framing import connect_socket
from airavata_scheduler.agent.loop_control import SOCKET
from airavata_scheduler.agent.machine import capacity, free_disk
from airavata_scheduler.agent.oplog import OpLog
from airavata_scheduler.agent.policy import read_policy
from airavata_scheduler.agent.settings import Settings
from airavata_scheduler.agent.state_folder import StateFolder
from airavata_scheduler.agent.transport import Lost, Transport, proxy_address
from airavata_scheduler.agent.version import VERSION

SKEW_S = 30.0
SLOW_FSYNC_S = 0.1


@dataclass(frozen=True)
class Check:
    """One line: `result` is pass, warn or fail; `fix` says what to type or change."""

    name: str
    result: str
    text: str
    fix: str = ""

    def line(self) -> str:
        """For a terminal."""
        line = f"{self.result:<4}  {self.name:<12}  {self.text}"
        return f"{line}\n      {'':<12}  fix: {self.fix}" if self.fix else line

    def to_json(self) -> dict[str, str]:
        """For `--json`."""
        return asdict(self)


def examine(settings: Settings) -> Iterator[Check]:
    """All checks, in an order in which an earlier failure explains a later one."""
    yield _python()
    yield from _folder(settings)
    yield _policy(settings)
    yield _machine(settings)
    yield _subreaper()
    if not settings.api_url:
        fix = "set API_URL=https://host[:port], or enrol"
        yield Check("api", "fail", "API_URL is not set", fix)
        return
    yield from _network(settings)


def _python() -> Check:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info < (3, 9):
        return Check("python", "fail", f"Python {version}", "start with Python 3.9 or newer")
    return Check("python", "pass", f"Python {version}, agent {VERSION}")


def _folder(settings: Settings) -> Iterator[Check]:
    try:
        folder = StateFolder(settings.home)
    except AgentFault as problem:
        yield Check(
            "folder", "fail", str(problem), "set AIRAVATA_AGENT_HOME to a folder of your own"
        )
        return
    yield Check("folder", "pass", f"{folder.path} (private)")
    yield _lock(folder.path)
    yield _fsync(folder.path)
    free, for_tasks = free_disk(folder.path)
    if not for_tasks:
        text = f"{free >> 20} MB free: no work is taken below 5 % or 500 MB"
        yield Check("disk", "fail", text, "free some space, or set OUTPUT_DIR elsewhere")
    else:
        yield Check("disk", "pass", f"{free >> 20} MB free")
    try:
        found = folder.find_identity()
    except (TypeError, ValueError):
        found = None
    if found is None:
        yield Check(
            "identity", "warn", "not enrolled", "run `enroll` with a token on standard input"
        )
    elif found.state == "pending":
        fix = f"airavata agent approve {found.name} --code {found.approval_code}"
        yield Check("identity", "warn", f"{found.name} waits for approval", fix)
    else:
        yield Check("identity", "pass", f"{found.name} of compute resource {found.compute}")


def _lock(path: Path) -> Check:
    if connect_socket(path / SOCKET, 2.0) is not None:
        return Check("lock", "pass", "an agent runs with this folder")
    try:
        with (path / "doctor.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        fix = "use a folder on a local disk (AIRAVATA_AGENT_HOME)"
        return Check("lock", "fail", f"files cannot be locked: {problem.strerror}", fix)
    finally:
        with contextlib.suppress(OSError):
            (path / "doctor.lock").unlink()
    return Check("lock", "pass", "files can be locked")


def _fsync(path: Path) -> Check:
    probe = path / "doctor.probe"
    try:
        with probe.open("wb") as file:
            file.write(b"x" * 4096)
            file.flush()
            started = time.monotonic()
            os.fsync(file.fileno())
            took = time.monotonic() - started
    except OSError as problem:
        return Check("fsync", "fail", f"cannot write: {problem.strerror}", "check the disk")
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    if took > SLOW_FSYNC_S:
        fix = "use a folder on a node-local disk (AIRAVATA_AGENT_HOME)"
        return Check("fsync", "warn", f"{took * 1000:.0f} ms for one write", fix)
    return Check("fsync", "pass", f"{took * 1000:.1f} ms")


def _policy(settings: Settings) -> Check:
    try:
        read_policy(settings.policy_file)
    except AgentFault as problem:
        return Check("policy", "fail", str(problem), f"mend {settings.policy_file}")
    there = settings.policy_file.exists()
    return Check(
        "policy", "pass", str(settings.policy_file) if there else "no policy file: all allowed"
    )


def _machine(settings: Settings) -> Check:
    try:
        size = capacity(read_policy(settings.policy_file))
    except AgentFault:
        return Check("machine", "fail", "unknown while the policy file is malformed")
    text = f"{size.cpu} cores, {size.ram_mb} MB, {len(size.gpus)} GPUs for payloads"
    if shutil.which("sh") is None:
        return Check("machine", "fail", "there is no sh on the PATH", "set PATH")
    return Check("machine", "pass", text)


def _subreaper() -> Check:
    pid = os.fork()
    if pid == 0:
        os._exit(0 if processes.become_subreaper() else 1)
    _, status = os.waitpid(pid, 0)
    if status:
        text = "processes that leave their group cannot be followed here"
        return Check("kernel", "warn", text, "run the agent on Linux 3.4 or newer")
    return Check("kernel", "pass", "payloads can be followed and stopped as a whole")


def _network(settings: Settings) -> Iterator[Check]:
    parts = urlsplit(settings.api_url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    proxy = proxy_address(parts.scheme, host)
    if proxy is not None:
        shown = urlsplit(proxy)
        yield Check("proxy", "pass", f"through {shown.hostname}:{shown.port}")
    else:
        yield _dns(host, port)
    if parts.scheme == "http" and host not in ("localhost", "127.0.0.1", "::1"):
        text = "the API is reached without TLS: secrets travel in clear text"
        yield Check("tls", "warn", text, "use an https:// address outside a trusted network")
    yield from _api(settings)


def _dns(host: str, port: int) -> Check:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as problem:
        fix = "check API_URL, or set HTTPS_PROXY where a proxy is needed"
        return Check("dns", "fail", f"{host} does not resolve: {problem}", fix)
    return Check("dns", "pass", f"{host} is {found[0][4][0]}")


def _api(settings: Settings) -> Iterator[Check]:
    try:
        transport = Transport(settings.api_url, ca_bundle=settings.ca_bundle, version=VERSION)
        answer = transport.request("GET", "/api/v1/health", timeout_s=10.0)
    except (AgentFault, Lost) as problem:
        fix = "check API_URL and the firewall"
        if isinstance(problem.__cause__, ssl.SSLError):
            fix = (
                "give the site's certificate authority with AIRAVATA_CA_BUNDLE=FILE or --ca-bundle"
            )
        yield Check("api", "fail", str(problem), fix)
        return
    if answer.status != 200:
        text = f"{settings.api_url} answers {answer.status}"
        yield Check("api", "fail", text, "check that API_URL is the scheduler's address")
        return
    yield Check("api", "pass", f"{settings.api_url} answers")
    yield _clock(answer.headers.get("Date"))
    yield from _verbs(transport)
    yield from _token(settings, transport)


def _clock(date: str | None) -> Check:
    if date is None:
        return Check("clock", "warn", "the API tells no time", "")
    skew = abs(time.time() - parsedate_to_datetime(date).timestamp())
    if skew > SKEW_S:
        text = f"this clock and the API's differ by {skew:.0f} s"
        return Check("clock", "warn", text, "start a time service (chrony, systemd-timesyncd)")
    return Check("clock", "pass", f"differs by {skew:.0f} s")


def _verbs(transport: Transport) -> Iterator[Check]:
    """A proxy that lets GET and POST through may still stop PUT or PATCH."""
    lease = f"{secrets.token_hex(16)}.1.{secrets.token_hex(16)}"
    stopped = []
    for method, path in (
        ("POST", "/agent/v1/heartbeat"),
        ("PUT", f"/agent/v1/leases/{lease}/artifacts?output=x&path=x"),
        ("PATCH", f"/agent/v1/leases/{lease}/log/stdout"),
    ):
        try:
            answer = transport.request(method, path, body=b"", timeout_s=10.0)
        except Lost:
            stopped.append(method)
            continue
        # Without a token the API itself answers 401; anything else comes from something between.
        if "problem+json" not in answer.headers.get("Content-Type", ""):
            stopped.append(method)
    if stopped:
        text = f"{', '.join(stopped)} does not get through to the API"
        yield Check("methods", "fail", text, "let the proxy pass PUT, PATCH and POST to the API")
    else:
        yield Check("methods", "pass", "POST, PUT and PATCH get through")


def _token(settings: Settings, transport: Transport) -> Iterator[Check]:
    identity = StateFolder(settings.home).find_identity()
    if identity is None:
        return
    api = Api(transport, OpLog("error"), threading.Event())
    every: list[str] = [s for s in (identity.next_secret, identity.secret) if s]
    api.use_identity(identity.agent_id, lambda: every)
    try:
        answer: dict[str, Any] = api.token_answer()
    except Refused as problem:
        pending = problem.code == "agent_pending"
        result = "warn" if pending else "fail"
        yield Check(
            "token", result, str(problem), "" if pending else "enrol again with a new token"
        )
        return
    except AgentFault as problem:
        yield Check("token", "fail", str(problem), "enrol again with a new token")
        return
    yield Check("token", "pass", f"the API knows this agent ({answer.get('state', 'active')})")
