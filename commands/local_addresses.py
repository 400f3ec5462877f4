"""Where the parts of the single-machine system listen: all on the loopback address."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

import click

from airavata_scheduler.models.errors import ConfigurationError

HOST = "127.0.0.1"
DEFAULT_PORT = 8080
AGENTS_PORT = 8443


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """The ports of one start."""

    port: int
    agents_port: int
    spicedb_port: int
    openbao_port: int
    openbao_cluster_port: int
    host: str = HOST

    @property
    def url(self) -> str:
        """The users' API."""
        return f"http://{self.host}:{self.port}"

    @property
    def agents_url(self) -> str:
        """The agents' API, over TLS with the machine's own authority."""
        return f"https://localhost:{self.agents_port}"

    @property
    def spicedb_endpoint(self) -> str:
        """The private SpiceDB's gRPC, over TLS with the machine's own authority."""
        return f"{self.host}:{self.spicedb_port}"

    @property
    def openbao_url(self) -> str:
        """The private OpenBao, over TLS with the machine's own authority."""
        return f"https://{self.host}:{self.openbao_port}"


def choose_addresses(port: int | None, last: dict[str, Any] | None) -> Addresses:
    """The asked port, else 8080, else any free one; the other ports stay as they were, if free.

    A port that was asked for and is taken is an error; a port that was only assumed is replaced for
    this start. The users' address is in the profile; the agents' is kept by other users' agents.
    """
    if port and not _is_free(port):
        raise ConfigurationError(
            f"Port {port} is used by another program.", hint="Try --port 0 for a free one."
        )
    wanted = DEFAULT_PORT if port is None else port
    taken: set[int] = set()
    chosen = _free_port(wanted, taken)
    if wanted and chosen != wanted:
        click.echo(f"Port {wanted} is used by another program; using {chosen}.", err=True)
    last_agents = _url_port(last["agents_url"]) if last and port != 0 else 0
    return Addresses(
        port=chosen,
        agents_port=_free_port(last_agents or (0 if port == 0 else AGENTS_PORT), taken),
        spicedb_port=_free_port(_last_port(last, "spicedb"), taken),
        openbao_port=_free_port(_last_port(last, "openbao"), taken),
        openbao_cluster_port=_free_port(0, taken),
    )


def _url_port(url: str) -> int:
    """The port at the end of `http://host:port`."""
    return int(url.rpartition(":")[2])


def _last_port(last: dict[str, Any] | None, name: str) -> int:
    """The port that the child `name` had in the status `last`, or 0."""
    ports = {child["name"]: child["port"] for child in last["children"]} if last else {}
    return ports.get(name) or 0


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _free_port(wanted: int, taken: set[int]) -> int:
    """`wanted` if it is free, else any other that is not in `taken`, to which it is added."""
    port = wanted if 0 < wanted < 65536 and wanted not in taken and _is_free(wanted) else 0
    while port == 0 or port in taken:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port = probe.getsockname()[1]
    taken.add(port)
    return port
