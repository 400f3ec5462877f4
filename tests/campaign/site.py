"""A whole deployment for a campaign: real servers, an API, a daemon and three agents.

Each part runs as a process of its own that may be killed, frozen and started again; `Keeper` starts
what ended, as systemd would. Every process of ours writes its history.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import httpx
import psutil

from airavata_scheduler.backends import openbao_setup
from airavata_scheduler.backends.openbao_http import Server as OpenBaoServer
from airavata_scheduler.backends.private_files import write_whole
from airavata_scheduler.client.api import Client
from airavata_scheduler.models.configuration import Configuration
from tests.acceptance.deployment import Deployment
from tests.acceptance.system import BIN, end_processes_in
from tests.servers.mariadb import MariaDB
from tests.servers.openbao import OpenBao
from tests.servers.postgresql import PostgreSQL
from tests.servers.programs import running
from tests.servers.redis import Redis
from tests.servers.spicedb import SpiceDB

Database = Literal["sqlite", "postgresql", "mariadb"]
AGENTS = ("agent-1", "agent-2", "agent-3")
COMPUTE = "campaign"
PROJECT = "campaign"
# Short enough that a frozen agent's tasks go to another within the campaign.
TIMERS = {
    "HEARTBEAT": "2s",
    "SUSPECT_AFTER": "6s",
    "REQUEUE_AFTER": "45s",
    "OFFER_ACK": "10s",
    "OUTAGE_GRACE": "30s",
}
_RESTART_S = 0.2


class Part(Protocol):
    """What can be killed, frozen and started again."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def alive(self) -> bool:
        """Whether it runs."""

    def start(self) -> None:
        """Start it; returns when it has begun, or answers."""


class ServerPart:
    """One of the servers that we stand on."""

    def __init__(self, server: Any) -> None:
        self._server = server

    @property
    def pid(self) -> int:
        """Its process id."""
        return int(self._server.server.pid)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return bool(self._server.server.alive)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._server.start()


class OurPart:
    """One process of ours: `airavata-scheduler WORD`."""

    def __init__(self, deployment: Deployment, word: str, environment: Mapping[str, str]) -> None:
        self._deployment, self._word, self._environment = deployment, word, environment
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it; it comes up by itself."""
        self.process = self._deployment.start(self._word, self._environment)


class Keeper:
    """Starts parts that ended, as systemd does, from one thread: they end with that thread."""

    def __init__(self) -> None:
        self._parts: Mapping[str, Part] = {}
        self._rests = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self.failures: list[str] = []

    def keep(self, parts: Mapping[str, Part]) -> None:
        """Look after the parts from now on."""
        self._parts = parts
        self._thread.start()

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *_: object) -> None:
        """End, and with it whatever still runs of what it started."""
        self._rests.set()
        self._ended.set()

    def rest(self) -> None:
        """Start nothing any more; what runs goes on."""
        self._rests.set()

    def _keep(self) -> None:
        while not self._rests.wait(_RESTART_S):
            for name, part in self._parts.items():
                if not part.alive:
                    try:
                        part.start()
                    except (AssertionError, OSError) as error:
                        self.failures.append(f"{name}: {error}")  # tried again at the next look
        self._ended.wait()


@dataclass(kw_only=True)
class Site:
    """The deployment, and what the campaign's user needs."""

    folder: Path
    database: Database
    database_url: str
    redis: Redis
    deployment: Deployment
    parts: dict[str, Part]
    agent_ids: dict[str, str] = field(default_factory=dict)  # by the part's name

    @property
    def histories(self) -> Path:
        """Where every process writes its history."""
        return self.folder / "history"

    @property
    def ledger(self) -> Path:
        """What the payloads write."""
        return self.folder / "ledger"

    def client(self, http: httpx.BaseTransport | None = None) -> Client:
        """The SDK as the campaign's user, patient with outages."""
        environ = {"HOME": str(self.deployment.folder)}
        return Client(project=PROJECT, environ=environ, retry_for_s=600.0, http=http)

    def agent_home(self, name: str) -> Path:
        """The state folder of an agent."""
        return self.folder / "agents" / name

    def resume(self, name: str) -> bool:
        """What an operator does after kills that they know of: no safe mode. Whether it heard."""
        done = subprocess.run(
            [str(BIN / "python"), "-m", "airavata_scheduler.agent", "resume"],
            env=agent_environment(self.deployment, self.folder, name),
            capture_output=True,
            timeout=60,
            check=False,
        )
        return done.returncode == 0


def agent_environment(deployment: Deployment, folder: Path, name: str) -> dict[str, str]:
    """The guide's variables of a worker, a state folder of its own and the history."""
    home = folder / "agents" / name
    return deployment.worker_environment(name, COMPUTE) | {
        "AIRAVATA_AGENT_HOME": str(home),
        "OUTPUT_DIR": str(home / "work"),
        "POLL_INTERVAL": "5s",
        "HISTORY_DIR": str(folder / "history"),
    }


@contextmanager
def site(
    folder: Path,
    database: Database,
    *,
    url: str | None = None,
    agents: Sequence[str] = AGENTS,
    **settings: str,
) -> Iterator[Site]:
    """A running deployment on one kind of database; everything has ended after the block.

    `url` is that of an empty database which is there already; without it a server is started.
    """
    with ExitStack() as stack:
        parts: dict[str, Part] = {}
        if url is None:
            url = _database(stack, folder, database, parts)
        redis = stack.enter_context(running(Redis(folder / "redis")))
        spicedb = stack.enter_context(running(SpiceDB(folder / "spicedb")))
        openbao = stack.enter_context(running(OpenBao(folder / "openbao")))
        parts |= {"redis": ServerPart(redis), "spicedb": ServerPart(spicedb)}
        parts |= {"openbao": ServerPart(openbao)}
        deployment = Deployment(
            folder=folder / "deployment",
            settings={
                "DATABASE_URL": url,
                "REDIS_URL": redis.url,
                "JWT_SECRET_KEY": "campaign" * 8,
                "STORAGE_PATH": str(folder / "storage"),
                "HISTORY_DIR": str(folder / "history"),
                "MAX_REQUESTS_PER_MINUTE": "1000000",
                **TIMERS,
                **spicedb.settings,
                **_secrets(openbao, folder),
                **settings,
            },
        )
        for inside in ("deployment", "agents"):
            stack.callback(end_processes_in, folder / inside)
        stack.callback(deployment.end_all)
        parts["api"] = OurPart(deployment, "server", deployment.environment)
        parts["daemon"] = OurPart(deployment, "daemon", deployment.environment)
        made = Site(
            folder=folder,
            database=database,
            database_url=url,
            redis=redis,
            deployment=deployment,
            parts=parts,
        )
        _furnish(made, agents)
        yield made


def _database(stack: ExitStack, folder: Path, database: Database, parts: dict[str, Part]) -> str:
    if database == "sqlite":
        return f"sqlite:///{folder / 'airavata.db'}"
    kind = PostgreSQL if database == "postgresql" else MariaDB
    server = stack.enter_context(running(kind(folder / database)))
    parts["database"] = ServerPart(server)
    return stack.enter_context(server.new_database("campaign"))


def _secrets(openbao: OpenBao, folder: Path) -> dict[str, str]:
    where = {"OPENBAO_ADDR": openbao.address, "OPENBAO_CA_FILE": str(openbao.ca_file)}
    server = OpenBaoServer.of(Configuration.read(where, dotenv=None))
    file = folder / "secret-id"
    with openbao.client() as root:
        role_id = openbao_setup.set_up(root, server).role_id
        write_whole(file, openbao_setup.wrapped_secret_id(root).encode(), 0o600)
    return {**where, "OPENBAO_ROLE_ID": role_id, "OPENBAO_SECRET_ID_FILE": str(file)}


def _furnish(made: Site, agents: Sequence[str]) -> None:
    """The API, the daemon, a user, a project, a compute resource and its agents."""
    deployment = made.deployment
    done = deployment.run("db", "upgrade")
    assert done.returncode == 0, done.stderr
    made.parts["api"].start()
    made.parts["daemon"].start()
    deployment.wait_until_it_answers()
    link = deployment.run("admin", "bootstrap").stdout.strip()
    for command in (
        ("auth", "bootstrap", link, "--user", "ada"),
        ("project", "create", PROJECT, "--use"),
        ("resource", "compute", "create", COMPUTE, "--kind", "BARE_METAL"),
    ):
        typed = deployment.airavata(*command)
        assert typed.returncode == 0, f"{command}: {typed.stderr}"
    for name in agents:
        environment = agent_environment(deployment, made.folder, name)
        part = OurPart(deployment, "worker", environment)
        made.parts[name] = part
        part.start()
        deployment.approve(name)
        deployment.wait_for_worker(name)
    for agent in deployment.answer("agent", "list")["items"]:
        made.agent_ids[agent["name"]] = agent["id"]


def children_of(pid: int) -> list[psutil.Process]:
    """The processes below one, or none if it is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal; whether somebody was there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False
