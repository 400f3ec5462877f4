"""The deployment guide's own calls: its four words with its variables, on its databases."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import pytest

from airavata_scheduler.models import database as db
from airavata_scheduler.models import migrations, schema
from tests.acceptance.deployment import Deployment
from tests.acceptance.system import ROOT, end_processes_in
from tests.servers.mariadb import PASSWORD as MARIADB_PASSWORD
from tests.servers.mariadb import USER as MARIADB_USER
from tests.servers.mariadb import MariaDB
from tests.servers.postgresql import PostgreSQL
from tests.servers.programs import free_port, missing, running
from tests.servers.redis import Redis
from tests.servers.spicedb import SpiceDB

JWT_SECRET_KEY = "0123456789abcdef0123456789abcdef"
POSTGRES_PASSWORD = "your_secure_password"
WORKER = "worker-001"
COMPUTE = "local-compute"
LEDGER_TASKS = 30
EXPERIMENT = """
name: {name}
parameters:
  NUMBER: {{type: int}}
  LEDGER: {{type: string, default: "{ledger}"}}
scripts:
  NOTE: |
    #!/bin/sh
    echo "$NUMBER" >> "$LEDGER"
    echo "$NUMBER" > number.txt
tasks:
  note:
    script: NOTE
    task_inputs: {{NUMBER: 1..{tasks}}}
    task_outputs: {{FOUND: number.txt}}
    resources: {{compute: {{cpu: 0}}}}
"""


@contextmanager
def deployment(folder: Path, **settings: str) -> Iterator[Deployment]:
    """A deployment in `folder`, whose every process has ended after the block."""
    own = {"JWT_SECRET_KEY": JWT_SECRET_KEY, "SPICEDB_TOKEN": "k", "WORKER_INTERVAL": "30s"}
    made = Deployment(folder=folder, settings=own | settings)
    try:
        yield made
    finally:
        made.end_all()
        end_processes_in(folder)


@contextmanager
def guide_postgres(server: PostgreSQL, name: str) -> Iterator[str]:
    """The guide's database and user, its schema loaded by `psql -f`; the DATABASE_URL."""
    psql = shutil.which("psql") or missing("psql")
    server.run("DROP ROLE IF EXISTS airavata")
    server.run(f"CREATE ROLE airavata LOGIN PASSWORD '{POSTGRES_PASSWORD}'")
    with server.new_database(name):
        server.run(f"ALTER DATABASE {name} OWNER TO airavata")
        url = f"postgres://airavata:{POSTGRES_PASSWORD}@127.0.0.1:{server.port}/{name}"
        subprocess.run(
            [psql, "-v", "ON_ERROR_STOP=1", "-q", "-d", url, "-f", ROOT / "db" / "schema.sql"],
            check=True,
            capture_output=True,
        )
        yield f"{url}?sslmode=disable"
    server.run("DROP ROLE airavata")


@contextmanager
def guide_mariadb(server: MariaDB, name: str) -> Iterator[str]:
    """The guide's database, its schema loaded by `mysql <`; the DATABASE_URL in Go's form."""
    mysql = shutil.which("mysql") or missing("mysql, the client of MariaDB")
    with server.new_database(name) as url, (ROOT / "db" / "schema.mysql.sql").open() as schema:
        subprocess.run(
            [mysql, "-h127.0.0.1", f"-P{server.port}", f"-u{MARIADB_USER}", name],
            env={**os.environ, "MYSQL_PWD": MARIADB_PASSWORD},
            stdin=schema,
            check=True,
            capture_output=True,
        )
        yield url


@pytest.fixture(scope="module")
def postgres(
    postgres_server: PostgreSQL,
    redis_server: Redis,
    secrets_settings: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    """`server` and two `daemon`s on PostgreSQL, with an administrator and a worker.

    SpiceDB is on PostgreSQL too, and speaks TLS.
    """
    folder = tmp_path_factory.mktemp("guide-postgres")
    spicedb_folder = tmp_path_factory.mktemp("guide-spicedb")
    with (
        guide_postgres(postgres_server, "airavata_scheduler") as url,
        postgres_server.new_database("guide_spicedb") as store,
        running(SpiceDB(spicedb_folder, tls=True, postgres_url=store)) as spicedb,
        deployment(
            folder,
            DATABASE_URL=url,
            REDIS_URL=redis_server.url,
            **spicedb.settings,
            **secrets_settings,
        ) as made,
    ):
        made.start("server")
        made.start("daemon")
        made.start("daemon")
        furnish(made)
        yield made


@pytest.fixture(scope="module")
def mariadb(
    mariadb_server: MariaDB,
    secrets_settings: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    """`both` on MariaDB, with an administrator and a worker, and no Redis anywhere.

    SpiceDB is in memory and speaks no TLS: the guide's beginning.
    """
    folder = tmp_path_factory.mktemp("guide-mariadb")
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    with (
        guide_mariadb(mariadb_server, "airavata_scheduler") as url,
        running(SpiceDB(tmp_path_factory.mktemp("guide-spicedb"))) as spicedb,
        deployment(
            folder, DATABASE_URL=url, REDIS_URL=nowhere, **spicedb.settings, **secrets_settings
        ) as made,
    ):
        made.start("both")
        furnish(made)
        yield made


@pytest.fixture(params=["postgres", "mariadb"])
def guide(request: pytest.FixtureRequest) -> Deployment:
    """A furnished deployment on each of the guide's databases."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Deployment)
    return found


def furnish(made: Deployment) -> None:
    """Make the administrator, a project and a compute resource, and let a worker in."""
    made.wait_until_it_answers()
    link = made.run("admin", "bootstrap").stdout.strip()
    for command in (
        ("auth", "bootstrap", link, "--user", "ada"),
        ("project", "create", "physics", "--use"),
        ("resource", "compute", "create", COMPUTE, "--kind", "BARE_METAL"),
    ):
        done = made.airavata(*command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    made.start("worker", made.worker_environment(WORKER, COMPUTE))
    made.approve(WORKER)
    made.wait_for_worker(WORKER)


def run_experiment(made: Deployment, name: str, tasks: int) -> list[str]:
    """Run an experiment to its end; what its tasks wrote to a ledger outside our stores."""
    ledger = made.folder / f"{name}.ledger"
    text = EXPERIMENT.format(name=name, ledger=ledger, tasks=tasks)
    (made.folder / f"{name}.yml").write_text(text)
    done = made.airavata("experiment", "run", f"{name}.yml", "--watch")
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(ledger.read_text().split(), key=int)


def test_health_answers_without_a_login(guide: Deployment) -> None:
    """`curl :8080/api/v1/health` and `/api/v1/health/db`, as the guide has them."""
    answers = [guide.get(f"/api/v1/{path}") for path in ("health", "health/db")]

    assert [status for status, _ in answers] == [HTTPStatus.OK, HTTPStatus.OK]
    assert all('"ok"' in body for _, body in answers), answers


def test_the_four_metrics_tell_the_truth(guide: Deployment) -> None:
    """Each task that ran is counted once and its duration observed; requests move; one worker."""
    completed = {"compute": COMPUTE, "outcome": "completed"}
    before = guide.metric("scheduler_tasks_total", **completed)
    observed = guide.metric("scheduler_tasks_duration_seconds_count", **completed)
    requests = guide.metric("scheduler_api_requests_total", route="/api/v1/health")

    guide.get("/api/v1/health")
    run_experiment(guide, "counted", 3)

    assert guide.metric("scheduler_tasks_total", **completed) == before + 3
    assert guide.metric("scheduler_tasks_duration_seconds_count", **completed) == observed + 3
    assert guide.metric("scheduler_tasks_duration_seconds_sum", **completed) > 0
    assert guide.metric("scheduler_api_requests_total", route="/api/v1/health") == requests + 1
    assert guide.metric("scheduler_workers_active", compute=COMPUTE) == 1


def test_nothing_is_done_twice(guide: Deployment) -> None:
    """Two daemons beside each other (PostgreSQL), or no Redis at all: each task runs once."""
    ledger = run_experiment(guide, "once", LEDGER_TASKS)

    assert ledger == [str(number) for number in range(1, LEDGER_TASKS + 1)]


def test_a_worker_stops_and_starts_again_without_anybody(guide: Deployment) -> None:
    """A stopped worker is no longer active; its second start needs the same variables only."""
    worker = guide.processes[-1]

    code = guide.end(worker)
    guide.wait_for_worker(WORKER, "offline")
    active = guide.metric("scheduler_workers_active", compute=COMPUTE)
    guide.start("worker", guide.worker_environment(WORKER, COMPUTE))

    assert code == 0
    assert active == 0
    guide.wait_for_worker(WORKER)
    assert run_experiment(guide, "again", 1) == ["1"]


def test_there_is_one_first_administrator(guide: Deployment) -> None:
    """A second bootstrap link is refused with a sentence that helps."""
    done = guide.run("admin", "bootstrap")

    assert done.returncode == 1
    assert "administrator already" in done.stderr
    assert "password-link" in done.stderr


def test_both_databases_of_the_guide_may_be_malformed(tmp_path: Path) -> None:
    """A DATABASE_URL that is neither form is told from the variable's name."""
    with deployment(tmp_path, DATABASE_URL="airavata_scheduler") as made:
        done = made.run("server")

    assert_one_sentence(done, "DATABASE_URL")


WORDS = ("server", "daemon", "both")


@pytest.mark.parametrize("word", WORDS)
def test_an_empty_database_stops_the_start(word: str, postgres_url: str, tmp_path: Path) -> None:
    """Without a schema the start says how to get one."""
    with deployment(tmp_path, DATABASE_URL=postgres_url) as made:
        done = made.run(word)

    assert_one_sentence(done, "database is empty", "db upgrade", "db/schema.sql")


@pytest.mark.parametrize("word", WORDS)
def test_a_newer_database_stops_the_start(word: str, mariadb_url: str, tmp_path: Path) -> None:
    """A program that is older than the database refuses to touch it."""
    with deployment(tmp_path, DATABASE_URL=mariadb_url) as made:
        assert made.run("db", "upgrade").returncode == 0
        write_newer_version(mariadb_url)
        done = made.run(word)

    assert_one_sentence(done, "newer program")


@pytest.mark.parametrize("word", WORDS)
def test_a_wrong_password_stops_the_start(word: str, mariadb_url: str, tmp_path: Path) -> None:
    """The database's refusal is said without the password that was tried."""
    wrong = mariadb_url.replace(MARIADB_PASSWORD, "tried-in-vain")
    with deployment(tmp_path, DATABASE_URL=wrong) as made:
        done = made.run(word)

    assert_one_sentence(done, "Access denied", "DATABASE_URL", "password")
    assert "tried-in-vain" not in done.stdout + done.stderr


@pytest.mark.parametrize("word", ["server", "both"])
def test_a_taken_port_stops_the_start(word: str, sqlite_url: str, tmp_path: Path) -> None:
    """The sentence names the port and the variable."""
    with (
        deployment(tmp_path, DATABASE_URL=sqlite_url) as made,
        socket.create_server(("0.0.0.0", made.port)),
    ):
        assert made.run("db", "upgrade").returncode == 0
        done = made.run(word)

    assert_one_sentence(done, f"SERVER_PORT {made.port}")


@pytest.mark.parametrize("word", ["server", "both"])
def test_a_missing_key_stops_the_start(word: str, sqlite_url: str, tmp_path: Path) -> None:
    """There is no default for the key that signs tokens."""
    with deployment(tmp_path, DATABASE_URL=sqlite_url, JWT_SECRET_KEY="") as made:
        assert made.run("db", "upgrade").returncode == 0
        done = made.run(word)

    assert_one_sentence(done, "JWT_SECRET_KEY")


@pytest.mark.parametrize("word", WORDS)
def test_no_login_to_openbao_stops_the_start(word: str, sqlite_url: str, tmp_path: Path) -> None:
    """Every secret needs it, so it is said before anything runs."""
    with deployment(tmp_path, DATABASE_URL=sqlite_url) as made:
        assert made.run("db", "upgrade").returncode == 0
        done = made.run(word)

    assert_one_sentence(done, "Neither OPENBAO_TOKEN nor OPENBAO_ROLE_ID", "OPENBAO_ADDR")


def test_an_openbao_that_is_away_does_not_stop_the_start(sqlite_url: str, tmp_path: Path) -> None:
    """It is said, and the server serves: agents and running tasks need no secret."""
    away = {"OPENBAO_ADDR": f"http://127.0.0.1:{free_port()}", "OPENBAO_TOKEN": "s.a"}
    with deployment(tmp_path, DATABASE_URL=sqlite_url, **away) as made:
        assert made.run("db", "upgrade").returncode == 0
        made.start("server")
        made.wait_until_it_answers()
        said, ready = made.output("server").read_text(), made.get("/api/v1/health/ready")[1]

    assert "Warning: OpenBao, which keeps the secrets, cannot be reached." in said
    assert '"failed"' not in ready


def test_the_variables_may_stand_in_a_file(sqlite_url: str, tmp_path: Path) -> None:
    """`.env` in the folder of the start does as well as the environment."""
    with deployment(tmp_path) as made:
        (tmp_path / ".env").write_text(f'DATABASE_URL="{sqlite_url}"\nWORKER_INTERVAL="30s"\n')
        done = made.run("db", "upgrade")

    assert done.returncode == 0, done.stderr
    assert Path(sqlite_url.removeprefix("sqlite:///")).is_file()


def write_newer_version(url: str) -> None:
    """Record a migration that this code does not know."""
    db.connect(url)
    with db.connected():
        migrations.record(schema.VERSION + 1, "from the future")
    db.disconnect()


def assert_one_sentence(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """The start ended with exit code 2 or 1 and at most a sentence with its next step."""
    assert done.returncode in {1, 2}, done.stderr
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert 1 <= len(lines) <= 2, done.stderr
    for word in words:
        assert word in done.stderr
