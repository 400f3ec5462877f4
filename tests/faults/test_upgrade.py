"""What an operator does on a running deployment: restart everything, back up, restore."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaign import outcome
from tests.campaign.checker import reruns
from tests.campaign.notes import now
from tests.campaign.site import OurPart, Site, send, site
from tests.faults.under_load import AGENT, UnderLoad
from tests.servers.programs import server_folder

pytestmark = pytest.mark.nightly  # minutes, and the machine for itself

TASKS = 300
RESULTS = 30
_DUMP = ("pg_dump", "--clean", "--if-exists")
_RESTORE = ("psql", "--quiet", "--set=ON_ERROR_STOP=1")


@pytest.fixture
def made() -> Iterator[Site]:
    """A deployment on PostgreSQL with one agent."""
    with (
        server_folder("upgrade") as folder,
        site(folder, "postgresql", agents=(AGENT,)) as found,
    ):
        yield found


def stop(made: Site, name: str) -> None:
    """Stop one part as systemd does; an agent leaves its payloads to be adopted."""
    part = made.parts[name]
    assert isinstance(part, OurPart)
    assert part.process is not None
    if name == AGENT:
        send(part.pid, signal.SIGTERM)  # the first one drains, the second one stops
    made.deployment.end(part.process)


def start(made: Site, name: str) -> None:
    """Start it again, and wait for an API until it answers."""
    made.parts[name].start()
    if name == "api":
        made.deployment.wait_until_it_answers()


def test_everything_is_restarted_one_by_one_under_load(made: Site) -> None:
    """No task fails, none runs again, and no user gets an answer 5xx."""
    with UnderLoad(site=made, tasks=TASKS) as load:
        load.await_results(10)
        for name in ("api", "daemon", AGENT):
            assert outcome.open_tasks() > 0
            began = now()
            stop(made, name)
            start(made, name)
            load.note("fault", t=began, what=name, kind="restart", until=now(), number=0)

    assert reruns(load.judged) == 0
    assert load.visitor.errors == []
    assert [answer for answer in load.visitor.answers if answer.status >= 500] == []


def test_a_backup_that_was_made_under_load_is_restored_under_load(made: Site) -> None:
    """Agents work on meanwhile: every result that was acknowledged to them after it comes back."""
    dump = made.folder / "airavata.sql"
    with UnderLoad(site=made, tasks=TASKS) as load:
        load.await_results(RESULTS)
        by_psql(made, *_DUMP, f"--file={dump}")
        backed_up = now()
        load.await_results(RESULTS, since=backed_up)
        for name in ("api", "daemon"):
            stop(made, name)
        load.during("restore", lambda: restore(made, dump))
        load.note("failover", lost=True)
        for name in ("api", "daemon"):
            start(made, name)

    kept = {final["lease"] for final in load.judged.of("final")}
    assert {
        lease
        for event in load.judged.of("judged")
        if event["began"] > backed_up
        for lease, verdict, outcome in event["items"]
        if (verdict, outcome) == ("accepted", "completed")
    } <= kept
    assert reruns(load.judged) == 0


def by_psql(made: Site, *command: str) -> None:
    """Run one of PostgreSQL's programs on the deployment's database."""
    done = subprocess.run(
        [*command, f"--dbname={made.database_url}"],
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def restore(made: Site, dump: Path) -> None:
    """As docs/operations.md says, for what the dump holds."""
    by_psql(made, *_RESTORE, f"--file={dump}")
    for command in (("authz", "rebuild"), ("db", "new-epoch", "restored")):
        done = made.deployment.run(*command)
        assert done.returncode == 0, done.stderr
