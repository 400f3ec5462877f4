"""config/openbao-cluster.hcl: three nodes of one OpenBao, by the file that production has."""

from __future__ import annotations

import secrets
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from airavata_scheduler.backends import openbao_setup
from airavata_scheduler.backends.certificates import ensure_private_authority
from airavata_scheduler.backends.openbao import OpenBao as Secrets
from airavata_scheduler.backends.openbao_http import Server
from airavata_scheduler.backends.openbao_login import LoggedIn, login_of
from airavata_scheduler.commands.programs import openbao_program
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.errors import AiravataError, ConfigurationError, Conflict
from tests.secret_store import Kept, keep, kept
from tests.servers.openbao import STATIC_SEAL, here
from tests.servers.programs import Server as Program
from tests.servers.programs import as_user, free_port, missing, running
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
        self.server = Program(
            [*as_user(), program, "server", f"-config={configuration}", "-log-level=warn"],
            folder / "log",
            cwd=folder,
            environment={
                "BAO_RAFT_NODE_ID": f"openbao-{number}",
                "BAO_API_ADDR": f"https://localhost:{ports[number]}",
                "BAO_CLUSTER_ADDR": f"https://127.0.0.1:{cluster_port}",
            },
        )
        self.ca_file = folder / "certs" / "ca.pem"
        self.client = httpx.Client(
            base_url=f"https://localhost:{ports[number]}/v1/",
            verify=ssl.create_default_context(cafile=str(self.ca_file)),
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
    token = _joined(nodes)
    engine = {"type": "kv"}
    assert nodes[0].client.post("sys/mounts/kv", json=engine, headers=token).is_success
    assert nodes[0].client.post("kv/a", json={"word": "kept"}, headers=token).is_success

    nodes[0].server.kill()

    wait_until(lambda: LEADER in (nodes[1].health(), nodes[2].health()), timeout_s=60.0)
    wait_until(lambda: {_word(node, token) for node in nodes[1:]} == {"kept"})


def test_no_acknowledged_secret_is_lost_with_the_leader(nodes: list[Node]) -> None:
    """It is killed in the middle of writes; they wait for the next one and go on, each once."""
    token = _joined(nodes)["X-Vault-Token"]
    addresses = [str(node.client.base_url).removesuffix("/v1/") for node in nodes]
    leader, standby, third = (_secrets(nodes[0], address, token) for address in addresses)
    openbao_setup.set_up(leader.session.client(), leader.server)
    wait_until(lambda: _takes_writes(standby))
    assert abs(standby.now_ms() - leader.now_ms()) <= 2_000
    written: list[tuple[Secrets, Kept]] = []
    failed: list[AiravataError] = []
    enough = threading.Event()

    def write(secrets: Secrets) -> None:
        while not enough.is_set():
            try:
                first = keep(secrets, "old")
                written.append((secrets, keep(secrets, "new", path=first.path, expected=1)))
            except AiravataError as error:
                failed.append(error)

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, secrets) for secrets in (standby, third)]
        try:
            wait_until(lambda: len(written) > 20)
            nodes[0].server.kill()
            before = len(written)
            wait_until(lambda: len(written) > before + 20, timeout_s=60.0)
        finally:
            enough.set()
        for writer in writers:
            writer.result()

    assert not any(isinstance(error, Conflict) for error in failed), failed
    for writer_of, value in written:
        reader = third if writer_of is standby else standby
        assert value.version == 2
        assert kept(reader, value) == "new"
        assert [one.version for one in reader.versions(value.path)] == [1, 2]


def _secrets(node: Node, address: str, token: str) -> Secrets:
    where = {
        "OPENBAO_ADDR": address,
        "OPENBAO_CA_FILE": str(node.ca_file),
        "OPENBAO_TOKEN": token,
    }
    configuration = Configuration.read(where, dotenv=None)
    session = LoggedIn(server=Server.of(configuration), login=login_of(configuration))
    return Secrets(server=session.server, session=session)


def _takes_writes(secrets: Secrets) -> bool:
    try:
        keep(secrets, "first")
    except AiravataError:
        return False
    return True


def _joined(nodes: list[Node]) -> dict[str, str]:
    """Initialise the first, wait until all three vote; the header of the root token."""
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
    return token


def _voters(node: Node, token: dict[str, str]) -> int:
    answer = node.client.get("sys/storage/raft/configuration", headers=token).json()
    return sum(server["voter"] for server in answer["data"]["config"]["servers"])


def _word(node: Node, token: dict[str, str]) -> str | None:
    answer = node.client.get("kv/a", headers=token)
    return answer.json()["data"]["word"] if answer.is_success else None
