"""The tests' pairs of database servers: what a failover keeps and loses is certain."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airavata_scheduler.models import database as db
from airavata_scheduler.models import deployment, epoch, migrations
from tests.servers.pairs import PAIRS, Kind, Pair
from tests.servers.programs import server_folder
from tests.waiting import wait_until


@pytest.fixture(params=PAIRS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """PostgreSQL, then MariaDB."""
    found: Kind = request.param
    return found


@pytest.fixture
def pair(kind: Kind, request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A pair with our tables, bound; synchronous where the test says so."""
    synchronous = bool(getattr(request, "param", False))
    with (
        server_folder(f"{kind}-pair") as folder,
        PAIRS[kind](folder, synchronous=synchronous).running() as made,
    ):
        db.connect(made.url)
        migrations.upgrade()
        yield made
        db.disconnect()


@pytest.mark.parametrize("pair", [False, True], indirect=True, ids=["async", "sync"])
def test_a_failover(pair: Pair) -> None:
    """What was committed on the primary alone is gone, unless the standby had to acknowledge it."""
    deployment.write("old", "1")
    before = epoch.current()
    pair.wait_until_caught_up()
    if not pair.synchronous:
        pair.cut_line()
    deployment.write("newest", "1")

    pair.fail_over()

    wait_until(is_back, message="the new primary")
    assert deployment.read("old") == "1"
    assert deployment.read("newest") == ("1" if pair.synchronous else None)
    epoch.tick()
    assert epoch.current() != before
    deployment.write("after", "1")
    assert deployment.read("after") == "1"


def is_back() -> bool:
    try:
        db.checked_connection()
    except db.ConnectionLost:
        return False
    return True
