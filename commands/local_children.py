"""The children of `airavata-scheduler local`, as they are started."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import sys
from collections.abc import Callable

import redis

from airavata_scheduler.backends.openbao_setup import ROLE
from airavata_scheduler.commands.both import verb_command
from airavata_scheduler.commands.local_addresses import Addresses
from airavata_scheduler.commands.local_home import LocalHome
from airavata_scheduler.commands.local_openbao import PrivateOpenBao
from airavata_scheduler.commands.processes import ChildProcess
from airavata_scheduler.commands.programs import redis_program, spicedb_program

COMPUTE_NAME = "local"
REQUESTS_PER_MINUTE = 60_000  # one person's machine: a sweep must not be slowed by a limit
_PROBE_TIMEOUT_S = 2.0


def environment(home: LocalHome, addresses: Addresses) -> dict[str, str]:
    """The settings of the APIs and the daemon; the caller's environment overrides none of them."""
    inherited = _inherited() | {
        name: value
        for name, value in os.environ.items()
        if name in {"LOG_LEVEL", "SWEEP_WINDOW", "HEARTBEAT", "SUSPECT_AFTER", "REQUEUE_AFTER"}
        or name in {"OUTAGE_GRACE", "OFFER_ACK", "HISTORY_DIR"}
    }
    authority = str(home.tls / "ca.pem")
    return inherited | {
        "DATABASE_URL": home.database_url,
        "JWT_SECRET_KEY": home.jwt_secret,
        "REDIS_URL": f"unix://{home.redis_socket}",
        "SPICEDB_ENDPOINT": addresses.spicedb_endpoint,
        "SPICEDB_TOKEN": home.spicedb_key,
        "SPICEDB_INSECURE": "false",
        "SPICEDB_CA_FILE": authority,
        "OPENBAO_ADDR": addresses.openbao_url,
        "OPENBAO_CA_FILE": authority,
        "OPENBAO_ROLE_ID": ROLE,
        "OPENBAO_SECRET_ID_FILE": str(home.openbao_secret_id),
        "STORAGE_PATH": str(home.storage),
        "SERVER_HOST": addresses.host,
        "SERVER_PORT": str(addresses.port),
        "PUBLIC_URL": addresses.url,
        "AGENT_URL": addresses.agents_url,
        "AGENT_CA_FILE": authority,
        "AGENT_CERT_FILE": str(home.tls / "server.pem"),
        "API_WORKERS": "1",
        "MAX_REQUESTS_PER_MINUTE": str(REQUESTS_PER_MINUTE),
    }


def children(
    home: LocalHome, addresses: Addresses, agent_is_online: Callable[[], bool]
) -> list[ChildProcess]:
    """The servers, beside each other; then both APIs and the daemon; then one agent."""
    servers = _servers(home, addresses)
    ours = _apis_and_daemon(home, addresses, after=tuple(server.name for server in servers))
    agent = ChildProcess(
        name="agent",
        command=[sys.executable, "-m", "airavata_scheduler.agent", "run"],
        environment=_agent_environment(home, addresses),
        log=home.log("agent"),
        is_ready=agent_is_online,
        drains=True,
        after=("agents-api", "daemon"),
    )
    return [*servers, *ours, agent]


def _servers(home: LocalHome, addresses: Addresses) -> list[ChildProcess]:
    """Redis, SpiceDB and OpenBao: they get no setting of ours, and no key but their own."""
    openbao = PrivateOpenBao(
        home=home,
        host=addresses.host,
        port=addresses.openbao_port,
        cluster_port=addresses.openbao_cluster_port,
    )
    openbao.lay_out()
    trust = _trust(home)
    trust.set_alpn_protocols(["h2"])
    return [
        ChildProcess(
            name="redis",
            command=_redis_command(home),
            environment=_inherited(),
            log=home.log("redis"),
            is_ready=lambda: _redis_answers(home),
        ),
        ChildProcess(
            name="spicedb",
            command=_spicedb_command(home, addresses),
            environment=_inherited() | {"SPICEDB_GRPC_PRESHARED_KEY": home.spicedb_key},
            port=addresses.spicedb_port,
            log=home.log("spicedb"),
            is_ready=lambda: _accepts(addresses.host, addresses.spicedb_port, trust),
        ),
        ChildProcess(
            name="openbao",
            command=openbao.command(),
            environment=_inherited(),
            folder=home.openbao,
            port=addresses.openbao_port,
            log=home.log("openbao"),
            is_ready=openbao.is_ready,
            once_ready=openbao.set_up,
        ),
    ]


def _apis_and_daemon(
    home: LocalHome, addresses: Addresses, after: tuple[str, ...]
) -> list[ChildProcess]:
    shared = environment(home, addresses)
    agents = shared | {
        "API_GROUPS": "agent",
        "SERVER_PORT": str(addresses.agents_port),
        "TLS_CERT_FILE": str(home.tls / "server.pem"),
        "TLS_KEY_FILE": str(home.tls / "server.key"),
    }
    trust = _trust(home)
    return [
        ChildProcess(
            name="api",
            command=verb_command("server"),
            environment=shared,
            port=addresses.port,
            log=home.log("api"),
            is_ready=lambda: _answers(
                http.client.HTTPConnection(addresses.host, addresses.port, timeout=_PROBE_TIMEOUT_S)
            ),
            after=after,
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
            after=after,
        ),
        ChildProcess(
            name="daemon",
            command=verb_command("daemon"),
            environment=shared,
            log=home.log("daemon"),
            after=after,
        ),
    ]


def _inherited() -> dict[str, str]:
    """What every child has of the caller's environment."""
    names = {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH"}
    return {name: value for name, value in os.environ.items() if name in names}


def _trust(home: LocalHome) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(home.tls / "ca.pem"))


def _agent_environment(home: LocalHome, addresses: Addresses) -> dict[str, str]:
    """The agent gets what any agent gets: no database, no signing key."""
    history = {name: os.environ[name] for name in ("HISTORY_DIR",) if name in os.environ}
    return (
        _inherited()
        | history
        | {
            "API_URL": addresses.agents_url,
            "AIRAVATA_CA_BUNDLE": str(home.tls / "ca.pem"),
            "AIRAVATA_AGENT_HOME": str(home.agent),
            "AIRAVATA_ENROLMENT_TOKEN_FILE": str(home.token_file),
            "WORKER_ID": f"local-{socket.gethostname()}",
            "COMPUTE_ID": COMPUTE_NAME,
        }
    )


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


def _spicedb_command(home: LocalHome, addresses: Addresses) -> list[str]:
    # In memory: SQL is the truth, and the API and the daemon fill an empty SpiceDB from it. No
    # metrics port: it shows profiles, and would be one more address.
    return [
        *(spicedb_program(), "serve", "--datastore-engine=memory", "--log-level=warn"),
        f"--grpc-addr={addresses.spicedb_endpoint}",
        f"--grpc-tls-cert-path={home.tls / 'server.pem'}",
        f"--grpc-tls-key-path={home.tls / 'server.key'}",
        *("--http-enabled=false", "--metrics-enabled=false", "--grpc-shutdown-grace-period=1s"),
        *("--telemetry-endpoint=", "--skip-release-check"),
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


def _accepts(host: str, port: int, trust: ssl.SSLContext) -> bool:
    """Whether a TLS server with our certificate listens there."""
    try:
        with socket.create_connection((host, port), timeout=_PROBE_TIMEOUT_S) as connection:
            trust.wrap_socket(connection, server_hostname=host).close()
    except OSError:
        return False
    return True
