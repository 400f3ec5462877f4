"""SpiceDB as it is deployed: on PostgreSQL, two nodes together, with TLS, and wrong settings."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from airavata_scheduler.backends import projection, relay, spicedb
from airavata_scheduler.backends.certificates import ensure_private_authority
from airavata_scheduler.models.configuration import Configuration
from tests.api import Answered, Api, MakeApi
from tests.in_step import out_of_step
from tests.servers.postgresql import PostgreSQL
from tests.servers.programs import Server, as_user, free_port, listens, running, server_folder
from tests.servers.spicedb import SpiceDB
from tests.silently import another_process, environment, leave_project
from tests.waiting import wait_until

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)

ROUNDS = 25


def told(answered: Answered) -> tuple[int, str, str]:
    """The status, the code and the sentence of an answer."""
    assert int(answered.headers["Retry-After"]) > 0
    return answered.status_code, answered.json["code"], answered.json["detail"]


def use(config: Configuration, **settings: Any) -> None:
    """Let this process ask another SpiceDB, or in another way."""
    spicedb.configure(replace(config, **settings))


class Unprepared(SpiceDB):
    """A SpiceDB on a PostgreSQL that nobody migrated: it listens, and fails each call."""

    def _migrate(self, postgres_url: str) -> None:
        pass

    def start(self) -> None:
        """A port is all that it shows."""
        self.server.start(lambda: listens(self.port))


def test_a_store_that_was_not_migrated(
    api: Api, postgres_server: PostgreSQL, tmp_path: Path
) -> None:
    """A sentence with the next step, in the API and on the operator's terminal."""
    ada = api.user("ada")
    with (
        postgres_server.new_database("unprepared") as url,
        running(Unprepared(tmp_path / "spicedb", postgres_url=url)) as server,
    ):
        spicedb.configure(configured(api, server))
        # Before it has looked at its datastore it may be slow to answer, as one that is away.
        wait_until(lambda: "of its own" in ada.get("/projects").text, message="SpiceDB to answer")
        answered = ada.get("/projects")
        words = [
            another_process(configured(api, server), "authz", verb)
            for verb in ("upload", "rebuild")
        ]

    assert told(answered) == (
        503,
        "permissions_unavailable",
        "SpiceDB, which decides who may do what, has a fault of its own.",
    )
    assert "datastore migrate head" in answered.json["hint"]
    for ran in words:
        assert ran.returncode == 1
        assert "has a fault of its own" in ran.stderr
        assert "datastore migrate head" in ran.stderr
        assert "Traceback" not in ran.stderr


def configured(api: Api, server: SpiceDB) -> Configuration:
    """The application's settings, but for another SpiceDB."""
    environ = environment(api.config) | server.settings
    environ |= {"STORAGE_PATH": str(api.config.storage_path), "REDIS_URL": api.config.redis_url}
    return Configuration.read(environ, dotenv=None)


def test_its_postgresql_is_away_for_a_while(make_api: MakeApi, tmp_path: Path) -> None:
    """That is no reason to fill it again: it goes on with what it holds."""
    with (
        server_folder("postgresql") as folder,
        running(PostgreSQL(folder)) as postgres,
        running(SpiceDB(tmp_path / "spicedb", postgres_url=postgres.url())) as server,
    ):
        api = make_api(**server.settings)
        ada, bob = api.user("ada"), api.user("bob")
        project = api.project(ada, "spine", viewer=bob)["id"]
        before = relay.projection_id()

        postgres.stop()
        away = ada.get("/projects")
        with pytest.raises(spicedb.PermissionsUnavailable, match="fault of its own"):
            projection.ensure()
        leave_project(project, bob.id)
        postgres.start()

        wait_until(lambda: ada.get("/projects").status_code == 200)
        assert told(away)[:2] == (503, "permissions_unavailable")
        assert relay.projection_id() == before
        assert bob.get(f"/projects/{project}").status_code == 404
        assert out_of_step() == set()


def test_a_restarted_spicedb_on_postgresql_goes_on(
    make_api: MakeApi, postgres_server: PostgreSQL, tmp_path: Path
) -> None:
    """Killed and started: nothing is filled again, and what was revoked meanwhile is revoked."""
    with (
        postgres_server.new_database("restarted") as url,
        running(SpiceDB(tmp_path / "spicedb", postgres_url=url)) as server,
    ):
        api = make_api(**server.settings)
        ada, bob = api.user("ada"), api.user("bob")
        project = api.project(ada, "spine", viewer=bob)["id"]
        before = relay.projection_id()
        assert bob.get(f"/projects/{project}").status_code == 200

        server.kill()
        leave_project(project, bob.id)
        server.start()

        wait_until(lambda: ada.get("/projects").status_code == 200)
        assert bob.get(f"/projects/{project}").status_code == 404
        assert relay.projection_id() == before


@pytest.fixture
def two_nodes(postgres_server: PostgreSQL, tmp_path: Path) -> Iterator[list[str]]:
    """The endpoints of two nodes on one PostgreSQL, which hand each other parts of checks.

    Each finds both by a name that only its own mount of /etc/hosts knows.
    """
    if os.getuid() != 0:
        pytest.skip("a private /etc/hosts takes root")
    hosts = tmp_path / "hosts"
    nodes = ("127.0.0.1", "127.0.0.2")
    hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{node} spice.test\n" for node in nodes))
    ports = [free_port(), free_port()]
    with postgres_server.new_database("two_nodes") as url, ExitStack() as stack:
        template = SpiceDB(tmp_path / "template", postgres_url=url)
        for node in nodes:
            command = [
                *(template.program, "serve", "--datastore-engine=postgres"),
                f"--grpc-addr={node}:{ports[0]}",
                *("--dispatch-cluster-enabled", f"--dispatch-cluster-addr={node}:{ports[1]}"),
                f"--dispatch-upstream-addr=dns:///spice.test:{ports[1]}",
                *("--http-enabled=false", "--metrics-enabled=false", "--telemetry-endpoint="),
                *("--skip-release-check", "--log-level=warn", "--grpc-shutdown-grace-period=1s"),
            ]
            script = 'mount --bind "$0" /etc/hosts && exec "$@"'
            server = Server(
                [*as_user(), "unshare", "-m", "sh", "-c", script, str(hosts), *command],
                tmp_path / f"log.{node}",
                environment={
                    "SPICEDB_GRPC_PRESHARED_KEY": template.token,
                    "SPICEDB_DATASTORE_CONN_URI": url,
                },
            )
            stack.callback(server.stop)
            server.start(partial(answers, f"{node}:{ports[0]}", template.token))
        yield [template.token, *(f"{node}:{ports[0]}" for node in nodes)]


def answers(endpoint: str, token: str) -> bool:
    """Whether the node's store can be read."""
    try:
        spicedb.SpiceDB(endpoint, token, insecure=True, ca=None).kinds()
    except spicedb.PermissionsUnavailable:
        return False
    return True


def test_two_nodes(make_api: MakeApi, two_nodes: list[str]) -> None:
    """What is granted and revoked by way of one holds at the other, at its next question."""
    token, *endpoints = two_nodes
    api = make_api(SPICEDB_ENDPOINT=endpoints[0], SPICEDB_TOKEN=token)
    ada, bob = api.user("ada"), api.user("bob")
    project = api.project(ada, "spine")["id"]
    ada.post("/groups", {"name": "lab"})
    ada.post("/projects/spine/members", {"group": "lab", "role": "viewer"})
    other = itertools.cycle(endpoints)

    seen = []
    for _ in range(ROUNDS):
        use(api.config, spicedb_endpoint=next(other))
        assert ada.post("/groups/lab/members", {"user": "bob"}).status_code == 201
        use(api.config, spicedb_endpoint=next(other))
        given = bob.get(f"/projects/{project}").status_code
        assert ada.delete("/groups/lab/members/bob").status_code == 204
        use(api.config, spicedb_endpoint=next(other))
        taken = bob.get(f"/projects/{project}").status_code
        seen.append((given, taken))

    assert seen == [(200, 404)] * ROUNDS
    for endpoint in endpoints:
        use(api.config, spicedb_endpoint=endpoint)
        assert out_of_step() == set()


def test_tls_and_wrong_settings(make_api: MakeApi, tmp_path: Path) -> None:
    """With its own authority it works; with a wrong one, none, or a wrong key: a sentence each."""
    other = tmp_path / "other"
    ensure_private_authority(other, ["localhost", "127.0.0.1"])
    with running(SpiceDB(tmp_path / "spicedb", tls=True)) as server:
        api = make_api(**server.settings)
        ada = api.user("ada")
        path = f"/projects/{api.project(ada, 'spine')['id']}"
        right = ada.get(path).status_code

        found = {}
        wrong: dict[str, dict[str, Any]] = {
            "wrong authority": {"spicedb_ca_file": other / "ca.pem"},
            "public authorities": {"spicedb_ca_file": None},
            "wrong key": {"spicedb_token": "another"},
            "no TLS": {"spicedb_insecure": True},
        }
        for name, settings in wrong.items():
            use(api.config, **settings)
            found[name] = told(ada.get(path))
        spicedb.configure(api.config)

    untrusted = "SpiceDB's certificate is not one that the scheduler trusts."
    refused = "SpiceDB refuses the scheduler's key."
    away = "SpiceDB, which decides who may do what, cannot be reached."
    assert right == 200
    assert found == {
        "wrong authority": (503, "permissions_unavailable", untrusted),
        "public authorities": (503, "permissions_unavailable", untrusted),
        "wrong key": (503, "permissions_unavailable", refused),
        "no TLS": (503, "permissions_unavailable", away),
    }


def test_the_operators_command_says_the_same(api: Api, tmp_path: Path) -> None:
    """`authz upload` with a wrong key or a wrong authority ends with a sentence and a next step."""
    other = tmp_path / "other"
    ensure_private_authority(other, ["localhost", "127.0.0.1"])
    with running(SpiceDB(tmp_path / "spicedb", tls=True)) as server:
        ran = {}
        ways: dict[str, dict[str, str]] = {
            "right": {},
            "wrong key": {"SPICEDB_TOKEN": "another"},
            "wrong authority": {"SPICEDB_CA_FILE": str(other / "ca.pem")},
            "no authority": {"SPICEDB_CA_FILE": str(tmp_path / "absent.pem")},
        }
        for name, settings in ways.items():
            env = environment(api.config) | server.settings | settings
            ran[name] = another_process(api.config, "authz", "upload", env=env)

    assert {name: done.returncode for name, done in ran.items()} == {
        "right": 0,
        "wrong key": 1,
        "wrong authority": 1,
        "no authority": 2,
    }
    assert "SPICEDB_TOKEN" in ran["wrong key"].stderr
    assert "SPICEDB_CA_FILE" in ran["wrong authority"].stderr
    assert "cannot be read" in ran["no authority"].stderr
