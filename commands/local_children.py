"""The children of `airavata-scheduler local`, as they are started."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass

import redis

from airavata_scheduler.commands.both import verb_command
from airavata_scheduler.commands.local_home import LocalHome
from airavata_scheduler.commands.processes import ChildProcess
from airavata_scheduler.commands.programs import redis_program

COMPUTE_NAME = "local"
REQUESTS_PER_MINUTE = 60_000  # one person's machine: a sweep must not be slowed by a limit
_PROBE_TIMEOUT_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Where the single-machine system listens; both ports on the loopback address only."""

    host: str
    port: int
    agents_port: int

    @property
    def url(self) -> str:
        """The users' API."""
        return f"http://{self.host}:{self.port}"

    @property
    def agents_url(self) -> str:
        """The agents' API, over TLS with the machine's own authority."""
        return f"https://localhost:{self.agents_port}"


def environment(home: LocalHome, addresses: Addresses) -> dict[str, str]:
    """The settings that every child shares; the caller's environment may override none of them."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name in {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR"}
        or name in {"LOG_LEVEL", "SWEEP_WINDOW", "HEARTBEAT", "SUSPECT_AFTER", "REQUEUE_AFTER"}
        or name in {"OUTAGE_GRACE", "OFFER_ACK", "PYTHONPATH"}
    }
    return inherited | {
        "DATABASE_URL": home.database_url,
        "JWT_SECRET_KEY": home.jwt_secret,
        "REDIS_URL": f"unix://{home.redis_socket}",
        "STORAGE_PATH": str(home.storage),
        "SERVER_HOST": addresses.host,
        "SERVER_PORT": str(addresses.port),
        "PUBLIC_URL": addresses.url,
        "AGENT_URL": addresses.agents_url,
        "AGENT_CA_FILE": str(home.tls / "ca.pem"),
        "AGENT_CERT_FILE": str(home.tls / "server.pem"),
        "API_WORKERS": "1",
        "MAX_REQUESTS_PER_MINUTE": str(REQUESTS_PER_MINUTE),
    }


def children(
    home: LocalHome, addresses: Addresses, agent_is_online: Callable[[], bool]
) -> list[ChildProcess]:
    """Redis, the users' API, the agents' API, the daemon and one agent, in order of start."""
    shared = environment(home, addresses)
    agents = shared | {
        "API_GROUPS": "agent",
        "SERVER_PORT": str(addresses.agents_port),
        "TLS_CERT_FILE": str(home.tls / "server.pem"),
        "TLS_KEY_FILE": str(home.tls / "server.key"),
    }
    trust = ssl.create_default_context(cafile=str(home.tls / "ca.pem"))
    return [
        ChildProcess(
            name="redis",
            command=_redis_command(home),
            environment=shared,
            log=home.log("redis"),
            is_ready=lambda: _redis_answers(home),
        ),
        ChildProcess(
            name="api",
            command=verb_command("server"),
            environment=shared,
            port=addresses.port,
            log=home.log("api"),
            is_ready=lambda: _answers(
                http.client.HTTPConnection(addresses.host, addresses.port, timeout=_PROBE_TIMEOUT_S)
            ),
        ),
        ChildProcess(
            name="agents-api",
            command=verb_command("server"),
            environment=agents,
            port=addresses.agents_port,
            log=home.log("agents-api"),
            is_ready=lambda: _answers(
                http.client.HTTPSConnection(
                    "localhost", addresses.agents_port, timeout=_PROBE_TIMEOUT_S, context=trust
                )
            ),
        ),
        ChildProcess(
            name="daemon",
            command=verb_command("daemon"),
            environment=shared,
            log=home.log("daemon"),
        ),
        ChildProcess(
            name="agent",
            command=[sys.executable, "-m", "airavata_scheduler.agent", "run"],
            environment=_agent_environment(home, addresses),
            log=home.log("agent"),
            is_ready=agent_is_online,
            drains=True,
        ),
    ]


def _agent_environment(home: LocalHome, addresses: Addresses) -> dict[str, str]:
    """The agent gets what any agent gets: no database, no signing key."""
    own = {
        name: value
        for name, value in os.environ.items()
        if name in {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "PYTHONPATH"}
    }
    return own | {
        "API_URL": addresses.agents_url,
        "AIRAVATA_CA_BUNDLE": str(home.tls / "ca.pem"),
        "AIRAVATA_AGENT_HOME": str(home.agent),
        "AIRAVATA_ENROLMENT_TOKEN_FILE": str(home.token_file),
        "WORKER_ID": f"local-{socket.gethostname()}",
        "COMPUTE_ID": COMPUTE_NAME,
    }


def _redis_command(home: LocalHome) -> list[str]:
    # No persistence: Redis holds wake-ups only, and losing them loses nothing.
    return [
        redis_program(),
        "--port",
        "0",
        "--unixsocket",
        str(home.redis_socket),
        "--unixsocketperm",
        "700",
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        str(home.root / "run"),
    ]


def _redis_answers(home: LocalHome) -> bool:
    try:
        with redis.Redis(unix_socket_path=str(home.redis_socket), socket_timeout=1) as connection:
            return bool(connection.ping())
    except redis.RedisError:
        return False


def _answers(connection: http.client.HTTPConnection) -> bool:
    try:
        connection.request("GET", "/api/v1/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
