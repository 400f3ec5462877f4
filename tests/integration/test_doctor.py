"""`airavata-scheduler doctor`: what it finds, and that it leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from airavata_scheduler.backends import projection, spicedb
from airavata_scheduler.commands.doctor import command
from airavata_scheduler.models import database, migrations
from airavata_scheduler.models.configuration import Configuration
from tests.servers.spicedb import SpiceDBTesting

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder and no setting but those that every machine can have."""
    for name in ("DATABASE_URL", "JWT_SECRET_KEY", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STORAGE_PATH", str(tmp_path / "storage"))
    return tmp_path


def findings(expected_status: int) -> dict[str, dict[str, str]]:
    """The doctor's findings by name."""
    result = CliRunner().invoke(command, ["--json"])
    assert result.exit_code == expected_status, result.output
    return {finding["name"]: finding for finding in json.loads(result.output)}


def test_nothing_is_set_up_yet(bare: Path) -> None:
    """Each thing that is missing is named with its next step, and no file is made."""
    found = findings(1)

    assert found["JWT_SECRET_KEY"]["verdict"] == "fail"
    assert "openssl rand" in found["JWT_SECRET_KEY"]["fix"]
    assert found["database"]["verdict"] == "fail"
    assert "db upgrade" in found["database"]["fix"]
    assert not list(bare.glob("*.db"))


def test_everything_is_there(
    bare: Path,
    monkeypatch: pytest.MonkeyPatch,
    redis_url: str,
    spicedb_testing_server: SpiceDBTesting,
    secrets_settings: dict[str, str],
) -> None:
    """With a database, Redis, SpiceDB, OpenBao and a key of one's own nothing fails."""
    settings = {
        "DATABASE_URL": f"sqlite:///{bare / 'airavata.db'}",
        "JWT_SECRET_KEY": SECRET,
        "REDIS_URL": redis_url,
        **spicedb_testing_server.new_store(),
        **secrets_settings,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    database.connect(settings["DATABASE_URL"])
    migrations.upgrade()
    spicedb.configure(Configuration.read(settings, dotenv=None))
    with database.connected():
        projection.rebuild()

    found = findings(0)

    assert {finding["verdict"] for finding in found.values()} == {"pass"}
    assert {"database", "permissions", "secrets", "redis"} <= set(found)
    database.disconnect()


def test_redis_away_is_a_warning(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis makes things quick, not correct."""
    monkeypatch.setenv("REDIS_URL", f"unix://{bare}/no.sock")

    found = findings(1)

    assert found["redis"]["verdict"] == "warn"


def test_a_malformed_setting_ends_the_examination(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence that names the variable."""
    monkeypatch.setenv("SERVER_PORT", "eighty")

    found = findings(1)

    assert list(found) == ["configuration"]
    assert found["configuration"]["seen"].startswith("SERVER_PORT")
    assert bare.is_dir()
