"""Reading DATABASE_URL: every documented form, and a sentence without the password otherwise."""

from __future__ import annotations

from pathlib import Path
from ssl import CERT_NONE, CERT_REQUIRED

import pytest

from airavata_scheduler.models.database_url import read_database_url
from airavata_scheduler.models.errors import ConfigurationError


def test_the_guides_postgresql_form() -> None:
    """`postgres://…?sslmode=disable`, as the deployment guide writes it."""
    address = read_database_url(
        "postgres://user:p%40ss@localhost:5432/airavata_scheduler?sslmode=disable"
    )

    assert (address.dialect, address.name) == ("postgresql", "airavata_scheduler")
    assert address.parameters == {
        "user": "user",
        "password": "p@ss",
        "host": "localhost",
        "port": "5432",
        "sslmode": "disable",
    }


def test_the_guides_go_mysql_form() -> None:
    """`user:password@tcp(host:port)/name?parseTime=true`, as the deployment guide writes it."""
    address = read_database_url(
        "user:password@tcp(localhost:3306)/airavata_scheduler?parseTime=true"
    )

    assert (address.dialect, address.name) == ("mysql", "airavata_scheduler")
    assert address.parameters == {
        "user": "user",
        "password": "password",
        "host": "localhost",
        "port": 3306,
    }


@pytest.mark.parametrize("password", ["a:b", "a@b", "a/b?c", "(x)", "%41", "ü", ""])
def test_a_go_password_is_taken_as_it_stands(password: str) -> None:
    """Go's driver decodes nothing, so neither do we."""
    address = read_database_url(f"user:{password}@tcp(db:3307)/name")

    assert address.parameters["password"] == password
    assert address.parameters["host"] == "db"


def test_go_forms_that_are_seen_less_often() -> None:
    """A socket, no port, no password, an IPv6 address."""
    assert read_database_url("u@unix(/run/mysqld.sock)/d").parameters == {
        "user": "u",
        "password": "",
        "unix_socket": "/run/mysqld.sock",
    }
    assert read_database_url("u@tcp(db)/d").parameters["port"] == 3306
    assert read_database_url("u@tcp([::1]:3310)/d").parameters["host"] == "::1"


def test_a_mysql_address() -> None:
    """`mysql://` percent-decodes user, password and name."""
    address = read_database_url("mysql://us%40er:p%2Fw@db/na%20me")

    assert (address.dialect, address.name) == ("mysql", "na me")
    assert address.parameters == {"host": "db", "port": 3306, "user": "us@er", "password": "p/w"}


def test_tls_is_asked_for_and_checked() -> None:
    """`tls=true` verifies the server; `skip-verify` says what it does."""
    strict = read_database_url("u:p@tcp(db)/d?tls=true").parameters["ssl"]
    lenient = read_database_url("mysql://u:p@db/d?tls=skip-verify").parameters["ssl"]

    assert (strict.verify_mode, strict.check_hostname) == (CERT_REQUIRED, True)
    assert (lenient.verify_mode, lenient.check_hostname) == (CERT_NONE, False)


def test_sqlite_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three slashes are relative to the working directory, four are absolute."""
    monkeypatch.chdir(tmp_path)

    assert read_database_url("sqlite:///a%20b.db").name == str(tmp_path / "a b.db")
    assert read_database_url("sqlite:////srv/a.db").name == "/srv/a.db"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hunter2",
        "user:hunter2@localhost/db",
        "user:hunter2@tcp(db:99999)/d",
        "user:hunter2@tcp(db:3306)/",
        "user:hunter2@tcp(db)/d?tls=preferred",
        "user:hunter2@tcp(db)/d?hunter=2",
        "user:hunter2@tcp(db)/d?ssl-ca=/hunter2",
        "mysql://user:hunter2@db",
        "mysql://user:hunter2@db:port/d",
        "postgres://user:hunter2@db:5432",
        "postgres://user:hunter2@db:5432/d?sslmode",
        "postgres://user:hunter2@db:5432/d?no_such=1",
        "oracle://user:hunter2@db/d",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
    ],
)
def test_a_malformed_address_is_refused_without_its_password(url: str) -> None:
    """One sentence that names the variable and shows the right forms, and no part of the secret."""
    with pytest.raises(ConfigurationError) as caught:
        read_database_url(url)

    text = f"{caught.value.detail} {caught.value!r} {caught.value.__cause__!r}"
    assert "DATABASE_URL" in text
    assert "postgres://user:password@" in text
    assert "hunter2" not in text
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
