"""config/openbao-cluster.hcl: three nodes of one OpenBao, by the file that production has."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from airavata_scheduler.backends.certificates import ensure_private_authority
from airavata_scheduler.commands.programs import openbao_program
from airavata_scheduler.models.errors import ConfigurationError
from tests.servers.openbao import STATIC_SEAL, here
from tests.servers.programs import Server, as_user, free_port, missing, running
from tests.waiting import wait_until

CONFIGURATION = Path(__file__).parents[2] / "config" / "openbao-cluster.hcl"
LEADER, STANDBY, NOT_JOINED = 200, 429, 501


class Node:
    """One node in a folder that has certs/ and seal.key, and a client that trusts it."""

    def __init__(self, folder: Path, number: int, ports: dict[int, int]) -> None:
        try:
            program = openbao_program()
        except ConfigurationError:
            missing("OpenBao (bao; pip install 'airavata-scheduler[local]')")
        for name in ("file", "logs"):
            (folder / name).mkdir()
        cluster_port = free_port()
        peers = {f"openbao-{peer}:8200": f"localhost:{port}" for peer, port in ports.items()}
        # Relative: the audit devices' text must be the same on all nodes, as in production.
        peers["/openbao/logs/"] = "logs/"
        text = CONFIGURATION.read_text() + STATIC_SEAL
        configuration = folder / "openbao.hcl"
        configuration.write_text(here(text, folder, ports[number], cluster_port, **peers))
        self.server = Server(
            [*as_user(), program, "server", f"-config={configuration}", "-log-level=warn"],
            folder / "log",
            cwd=folder,
            environment={
                "BAO_RAFT_NODE_ID": f"openbao-{number}",
                "BAO_API_ADDR": f"https://localhost:{ports[number]}",
                "BAO_CLUSTER_ADDR": f"https://127.0.0.1:{cluster_port}",
            },
        )
        self.client = httpx.Client(
            base_url=f"https://localhost:{ports[number]}/v1/",
            verify=ssl.create_default_context(cafile=str(folder / "certs" / "ca.pem")),
            timeout=10,
            follow_redirects=True,
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.server.start(lambda: self.health() is not None)

    def stop(self) -> None:
        """End it, as a power cut would: this is a test."""
        self.server.kill()
        self.client.close()

    def health(self) -> int | None:
        """The status of sys/health, None where nothing answers."""
        try:
            return self.client.get("sys/health").status_code
        except httpx.TransportError:
            return None


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Node]]:
    """Three nodes; the first one is initialised, the others have found it."""
    ports = {number: free_port() for number in (1, 2, 3)}
    key = secrets.token_bytes(32)
    ensure_private_authority(tmp_path / "certs", ["localhost", "127.0.0.1"])
    with ExitStack() as stack:
        made = []
        for number in ports:
            folder = tmp_path / str(number)
            folder.mkdir()
            (folder / "certs").symlink_to(tmp_path / "certs")
            (folder / "seal.key").write_bytes(key)
            made.append(stack.enter_context(running(Node(folder, number, ports))))
        yield made


def test_three_nodes_hold_one_store_and_a_killed_leader_is_replaced(nodes: list[Node]) -> None:
    """The others join by themselves; what was written is there after the leader died."""
    shares = {"recovery_shares": 1, "recovery_threshold": 1}
    made = nodes[0].client.put("sys/init", json=shares).json()
    token = {"X-Vault-Token": made["root_token"]}
    wait_until(lambda: [node.health() for node in nodes] == [LEADER, STANDBY, STANDBY])
    # Else a new node has a vote after about 20 s only.
    quick = {"server_stabilization_time": "1s"}
    wait_until(
        lambda: (
            nodes[0]
            .client.post("sys/storage/raft/autopilot/configuration", json=quick, headers=token)
            .is_success
        )
    )
    wait_until(lambda: _voters(nodes[0], token) == 3, timeout_s=60.0, message="three voters")
    engine = {"type": "kv"}
    assert nodes[0].client.post("sys/mounts/kv", json=engine, headers=token).is_success
    assert nodes[0].client.post("kv/a", json={"word": "kept"}, headers=token).is_success

    nodes[0].server.kill()

    wait_until(lambda: LEADER in (nodes[1].health(), nodes[2].health()), timeout_s=60.0)
    wait_until(lambda: {_word(node, token) for node in nodes[1:]} == {"kept"})


def _voters(node: Node, token: dict[str, str]) -> int:
    answer = node.client.get("sys/storage/raft/configuration", headers=token).json()
    return sum(server["voter"] for server in answer["data"]["config"]["servers"])


def _word(node: Node, token: dict[str, str]) -> str | None:
    answer = node.client.get("kv/a", headers=token)
    return answer.json()["data"]["word"] if answer.is_success else None
