"""The commands of "Backup and restore" in docs/operations.md, typed as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from airavata_scheduler.backends import spicedb
from airavata_scheduler.commands.programs import openbao_program
from airavata_scheduler.models import database as db
from airavata_scheduler.models.database_url import read_database_url
from tests.api import Api, LoggedIn, MakeApi
from tests.canaries import canary
from tests.in_step import out_of_step
from tests.integration.test_credentials import make, reveal
from tests.secret_store import Store, store, store_server
from tests.servers.spicedb import SpiceDBTesting
from tests.silently import another_process, environment

__all__ = ["store", "store_server"]

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
NAME = "airavata_scheduler"
PROGRAMS = {"sqlite": ("sqlite3",), "postgresql": ("pg_dump", "psql"), "mariadb": ("mariadb",)}


def block(number: int, kind: str) -> str:
    """The lines of one block of the section: those of every database, and those of this one."""
    section = PAGE.read_text().partition("\n## Backup and restore\n")[2].partition("\n## ")[0]
    lines = re.findall(r"```\n(.*?)```", section, re.DOTALL)[number].splitlines()
    mine = [line for line in lines if line.startswith(PROGRAMS[kind]) or not _is_sql(line)]
    assert len(mine) < len(lines)
    return "\n".join(["set -e", *mine])


def _is_sql(line: str) -> bool:
    return line.startswith(tuple(word for words in PROGRAMS.values() for word in words))


class Operator:
    """Somebody at a shell in a folder of backups, with logins in files and variables."""

    def __init__(self, api: Api, store: Store, folder: Path, kind: str) -> None:
        self.url, self.kind, self.folder = api.config.database_url, kind, folder
        self.storage = api.config.storage_path
        programs = [Path(openbao_program()).parent, Path(sys.executable).parent]
        self.environment = environment(api.config) | store.login()
        self.environment |= {
            "PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]]),
            "HOME": str(folder),
            "OPENBAO_ADDR": store.bao.address,
            "OPENBAO_CA_FILE": str(store.bao.ca_file),
            "BAO_ADDR": store.bao.address,
            "BAO_CACERT": str(store.bao.ca_file),
            "BAO_TOKEN": store.bao.root_token,
        }
        known = read_database_url(self.url).parameters
        if kind == "postgresql":
            names = {"PGHOST": "host", "PGPORT": "port", "PGUSER": "user"}
            self.environment |= {name: str(known[key]) for name, key in names.items()}
        if kind == "mariadb":
            (folder / ".my.cnf").write_text(
                f"[client]\nhost={known['host']}\nport={known['port']}\n"
                f'user={known["user"]}\npassword="{known["password"]}"\n'
            )

    def types(self, number: int) -> str:
        """Type one block of the page; what was said."""
        text = block(number, self.kind).replace("/storage ", f"{self.storage} ")
        if self.kind == "sqlite":
            text = text.replace(f"{NAME}.db", read_database_url(self.url).name)
        else:
            text = text.replace(NAME, read_database_url(self.url).name)
        done = subprocess.run(
            ["bash", "-c", text],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def api(make_api: MakeApi, store: Store) -> Api:
    """The application with an OpenBao of this module."""
    where = {"OPENBAO_ADDR": store.bao.address, "OPENBAO_CA_FILE": str(store.bao.ca_file)}
    return make_api(**where, **store.login())


def revoked_and_granted(ada: LoggedIn) -> None:
    """What the backup does not have: bob out, eve in, and another value."""
    ada.post("/projects/spine/members", {"user": "eve", "role": "viewer"})
    ada.delete("/projects/spine/members/bob")
    value = {"value": {"username": "ada", "password": canary("after-the-backup")}}
    assert ada.post("/credentials/cluster/rotate", value).status_code == 200


def test_everything_is_backed_up_and_restored(
    api: Api, store: Store, database_kind: str, tmp_path: Path
) -> None:
    """Rows, permissions and secrets are together those of the backup."""
    ada, bob, eve = api.user("ada"), api.user("bob"), api.user("eve")
    project = api.project(ada, viewer=bob)["id"]
    make(ada)
    before = reveal(ada).json["value"]
    (tmp_path / "backups").mkdir()
    operator = Operator(api, store, tmp_path / "backups", database_kind)

    kept = api.config.storage_path / "kept"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text("here")
    operator.types(0)
    kept.unlink()
    revoked_and_granted(ada)
    assert eve.get(f"/projects/{project}").status_code == 200
    db.database.close_all()
    said = operator.types(1)

    assert "SpiceDB holds" in said
    assert "It holds the 1 values that were written last." in said
    assert kept.read_text() == "here"
    assert reveal(ada).json["value"] == before
    assert bob.get(f"/projects/{project}").status_code == 200
    assert eve.get(f"/projects/{project}").status_code == 404
    assert out_of_step() == set()


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_an_empty_spicedb_is_filled_by_the_command(
    api: Api, spicedb_testing_server: SpiceDBTesting
) -> None:
    """Until then each request about an object is refused."""
    ada, bob = api.user("ada"), api.user("bob")
    project = api.project(ada)["id"]
    empty = spicedb_testing_server.new_store()
    spicedb.configure(replace(api.config, spicedb_token=empty["SPICEDB_TOKEN"]))

    refused = ada.get(f"/projects/{project}")
    filled = another_process(
        api.config, "authz", "rebuild", env=environment(api.config) | dict(empty)
    )

    assert (refused.status_code, refused.json["code"]) == (503, "permissions_rebuilding")
    assert filled.returncode == 0, filled.stderr
    assert "SpiceDB holds" in filled.stdout
    assert ada.get(f"/projects/{project}").status_code == 200
    assert bob.get(f"/projects/{project}").status_code == 404
    assert out_of_step() == set()
