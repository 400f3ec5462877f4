"""Health: the process, the database, everything."""

from __future__ import annotations

from airavata_scheduler.models import database as db
from tests.api import Api, MakeApi


def test_health_needs_nothing_but_the_process(api: Api) -> None:
    """`/health` answers without a token, and also while the database is away."""
    db.disconnect()

    answer = api.nobody.get("/health")

    assert answer.status_code == 200
    assert answer.json == {"status": "ok"}


def test_health_db_asks_the_database(api: Api) -> None:
    """`/health/db` names the database and how long it took."""
    answer = api.nobody.get("/health/db")

    assert answer.status_code == 200
    assert answer.json["status"] == "ok"
    assert answer.json["database"] == db.dialect()


def test_readiness_names_every_dependency(
    make_api: MakeApi, secrets_settings: dict[str, str]
) -> None:
    """Redis is away in this test: the server says so, and that it still works."""
    answer = make_api(**secrets_settings).nobody.get("/health/ready")

    found = {item["name"]: item["status"] for item in answer.json["dependencies"]}
    assert found == {
        "database": "ok",
        "schema": "ok",
        "permissions": "ok",
        "secrets": "ok",
        "redis": "degraded",
        "storage": "ok",
    }
    assert answer.json["status"] == "degraded"
    assert answer.status_code == 200


def test_readiness_fails_without_storage(api: Api) -> None:
    """A storage folder that is gone is a failure: results could not be kept."""
    api.config.storage_path.rename(api.config.storage_path.with_name("elsewhere"))

    answer = api.nobody.get("/health/ready")

    assert answer.status_code == 503
    assert answer.json["status"] == "failed"


def test_secrets_away_degrade_and_do_not_fail(make_api: MakeApi) -> None:
    """Agents and running tasks do without OpenBao: the server stays in service."""
    away = {"OPENBAO_ADDR": "http://127.0.0.1:1", "OPENBAO_TOKEN": "s.a"}

    answer = make_api(**away).nobody.get("/health/ready")

    found = {item["name"]: item for item in answer.json["dependencies"]}
    assert found["secrets"]["status"] == "degraded"
    assert "cannot be reached" in found["secrets"]["detail"]
    assert answer.status_code == 200
