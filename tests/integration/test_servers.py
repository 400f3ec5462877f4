"""The private SpiceDB and OpenBao of the tests start, answer, die and come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from authzed.api.v1 import ReadSchemaRequest, WriteSchemaRequest
from hvac import exceptions

from tests.servers.openbao import OpenBao
from tests.servers.postgresql import PostgreSQL
from tests.servers.programs import running
from tests.servers.spicedb import SpiceDB, SpiceDBTesting
from tests.waiting import wait_until

SCHEMA = "definition user {}\n"


MOUNT = "of-these-tests"  # other tests of the session have the scheduler's own


def write_schema(client: Any) -> None:
    """Put SCHEMA into the store."""
    client.WriteSchema(WriteSchemaRequest(schema=SCHEMA), timeout=5)


def has_schema(client: Any) -> bool:
    """Whether the store has a schema."""
    try:
        client.ReadSchema(ReadSchemaRequest(), timeout=5)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.NOT_FOUND:
            return False
        raise
    return True


def test_each_key_of_the_testing_server_has_its_own_store(
    spicedb_testing_server: SpiceDBTesting,
) -> None:
    """Tests that run beside each other do not see each other's relationships."""
    one, two = (spicedb_testing_server.new_store()["SPICEDB_TOKEN"] for _ in range(2))

    write_schema(spicedb_testing_server.client(one))

    assert has_schema(spicedb_testing_server.client(one))
    assert not has_schema(spicedb_testing_server.client(two))


@pytest.mark.parametrize("tls", [False, True])
def test_spicedb_knows_its_key_and_forgets_when_it_is_killed(tmp_path: Path, tls: bool) -> None:
    """In memory; on the same port again; another key is refused; no argument holds the key."""
    with running(SpiceDB(tmp_path, tls=tls)) as server:
        write_schema(server.client())
        with pytest.raises(grpc.RpcError) as refused:
            has_schema(server.client("another"))
        assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
        assert not any(server.token in word for word in server.server.command)

        server.kill()
        assert not server.answers()
        server.start()

        assert not has_schema(server.client())


def test_a_frozen_spicedb_says_nothing_until_it_is_thawed(tmp_path: Path) -> None:
    """Its port stays open meanwhile."""
    with running(SpiceDB(tmp_path)) as server:
        server.freeze()
        assert not server.answers()

        server.thaw()

        wait_until(server.answers)


def test_spicedb_on_postgresql_remembers(tmp_path: Path, postgres_server: PostgreSQL) -> None:
    """What was written is there after a kill."""
    with (
        postgres_server.new_database("spicedb") as url,
        running(SpiceDB(tmp_path, postgres_url=url)) as server,
    ):
        write_schema(server.client())

        server.kill()
        server.start()

        assert has_schema(server.client())


@pytest.mark.parametrize("seal", ["static", "shamir"])
def test_openbao_keeps_its_secrets_through_a_kill_and_a_seal(tmp_path: Path, seal: Any) -> None:
    """Unsealed again on the same port; both audit devices write; a sealed one answers 503."""
    with running(OpenBao(tmp_path, seal=seal)) as server:
        with server.client() as client:
            client.sys.enable_secrets_engine("kv", path=MOUNT, options={"version": "2"})
            wait_until(lambda: written(client, "one"))
        server.kill()
        assert server.health() is None
        server.start()

        assert read(server) == "one"
        server.seal()
        with pytest.raises(exceptions.VaultDown):
            read(server)
        server.unseal()
        assert read(server) == "one"
        assert all(file.stat().st_size > 0 for file in server.audit_files)
        assert not any("one-secret" in file.read_text() for file in server.audit_files)


def test_a_sealed_openbao_stays_sealed(tmp_path: Path) -> None:
    """Also a new one, which tries its stored key once more 5 s after its start."""
    with running(OpenBao(tmp_path)) as server:
        server.seal()

        with pytest.raises(AssertionError, match="in vain"):
            wait_until(lambda: server.health() != 503, timeout_s=6.0)


def test_openbao_goes_back_to_a_snapshot(openbao_server: OpenBao) -> None:
    """Restoring it loses what was written since."""
    with openbao_server.client() as client:
        client.sys.enable_secrets_engine("kv", path=MOUNT, options={"version": "2"})
        wait_until(lambda: written(client, "old"))
        snapshot = openbao_server.save_snapshot()
        assert written(client, "new")

        openbao_server.restore_snapshot(snapshot)

    assert read(openbao_server) == "old"


def test_a_frozen_openbao_says_nothing_until_it_is_thawed(openbao_server: OpenBao) -> None:
    """Its port stays open meanwhile."""
    openbao_server.freeze()
    with pytest.raises(requests.Timeout), openbao_server.client(timeout_s=1) as client:
        client.auth.token.lookup_self()

    openbao_server.thaw()

    wait_until(lambda: openbao_server.health() == 200)


def written(client: Any, word: str) -> bool:
    """Write a secret; False while the mount is still being made."""
    try:
        client.secrets.kv.v2.create_or_update_secret(
            "a", secret={"word": word, "more": f"{word}-secret"}, mount_point=MOUNT
        )
    except exceptions.InvalidRequest:
        return False
    return True


def read(server: OpenBao) -> str:
    """The word that `written` wrote."""
    with server.client() as client:
        answer = client.secrets.kv.v2.read_secret_version(
            "a", mount_point=MOUNT, raise_on_deleted_version=True
        )
        return str(answer["data"]["data"]["word"])
