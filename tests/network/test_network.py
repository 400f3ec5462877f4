"""Networks that fail between agents and the API: everything is done once, and nothing is lost.

Whole deployments; each agent in a network of its own, behind a proxy. The judge of campaigns
(I1 to I8) looks at all that happened.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import pytest

from airavata_scheduler.client.api import Client
from tests.campaign import outcome
from tests.campaign.checker import check, reruns
from tests.campaign.main import wrong_results
from tests.campaign.site import PROJECT, TIMERS, Site, site
from tests.campaign.work import Work
from tests.lossy_proxy import FAULTS as LOSSES
from tests.lossy_proxy import at_random
from tests.network.fleet import Away, Line, agents, ended, fleet
from tests.network.host import FAULTS
from tests.waiting import wait_until

TASKS = 200
STRIKES = 18
LONG_CUT_S = float(TIMERS["REQUEUE_AFTER"].removesuffix("s")) + 8.0  # its tasks go to another
REST_S = 300.0
_LINES = 20


@pytest.fixture
def made(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Site]:
    """A deployment without agents on SQLite; a parameter gives other timers."""
    folder = tmp_path_factory.mktemp("network")
    for path in (folder, folder.parent):
        path.chmod(0o755)
    timers: dict[str, str] = getattr(request, "param", {})
    with site(folder, "sqlite", agents=(), **timers) as found:
        outcome.look_at(found.database_url)
        yield found


@pytest.mark.campaign
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_work_goes_on_over_lines_that_fail(seed: int, made: Site) -> None:
    """Cut, cut one way, lossy and reset lines; lost, late, doubled, torn and slow calls, together.

    One cut is longer than `requeue_after`: the agent comes back when its session has expired.
    """
    with fleet(made, ("agent-1", "agent-2")) as pair:
        for away in pair:
            away.proxy.choose = at_random(seed, 0.15)
        work = Work(made, TASKS, seed)
        submits = threading.Thread(target=work.run, daemon=True)
        submits.start()
        strike_all(Line(made), pair, seed)
        submits.join(REST_S)
        assert not submits.is_alive(), "the work could not be submitted"
        for away in pair:
            away.proxy.choose = lambda: "nothing"
        wait_until(lambda: outcome.open_tasks() == 0, timeout_s=REST_S, message="all to end")
        wrong = wrong_results(made, work)
        record = ended(made, work.submitted.with_outputs)

    suffered = set().union(*(away.proxy.counts for away in pair))
    assert suffered >= set(LOSSES)
    assert {event["kind"] for event in record.of("fault")} == {*FAULTS}
    assert [str(fault) for fault in check(record)] == []
    assert list(record.of("expired"))
    assert wrong == 0


def strike_all(line: Line, pair: list[Away], seed: int) -> None:
    """Each fault several times, in an order from the seed, and one cut that is long."""
    dice, never = random.Random(seed), threading.Event()
    kinds = [FAULTS[number % len(FAULTS)] for number in range(STRIKES)]
    strikes = [(dice.choice(pair), kind, dice.uniform(0.5, 6.0)) for kind in kinds]
    strikes.append((pair[0], "cut", LONG_CUT_S))
    dice.shuffle(strikes)
    for away, kind, seconds in strikes:
        with line.broken(away, kind):
            never.wait(seconds)  # how long it lasts is the fault
        never.wait(dice.uniform(0.2, 2.0))


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("made", "seconds"),
    [
        # Two thirds of `requeue_after`, as ten minutes are of fifteen.
        pytest.param({}, 30.0, marks=pytest.mark.campaign),
        pytest.param(
            {"HEARTBEAT": "15s", "SUSPECT_AFTER": "90s", "REQUEUE_AFTER": "15m"},
            600.0,
            marks=pytest.mark.nightly,
        ),
    ],
    indirect=["made"],
)
@pytest.mark.parametrize("fault", ["cut", "cut-out", "cut-back"])
def test_a_partition_of_ten_minutes_runs_nothing_again(
    fault: str, seconds: float, made: Site
) -> None:
    """Tasks go on and end while the line is cut; the agent is shown as unreachable, nothing else.

    Afterwards every result is there, every log is complete, and no attempt was a second one.
    """
    never = threading.Event()
    with fleet(made, ("agent-1",)) as (away,), made.client() as client:
        short = submit(made, client, "short", seconds / 3)
        long = submit(made, client, "long", seconds + 10.0)
        wait_until(lambda: len(starts(made)) == 2, timeout_s=60, message="the starts")
        until = time.monotonic() + seconds
        with Line(made).broken(away, fault):
            wait_until(
                lambda: agents(made)[0]["presence"] == "unreachable",
                timeout_s=seconds,
                message="the agent to be shown as unreachable",
            )
            never.wait(until - time.monotonic())  # that it lasts so long is the fault
        wait_until(lambda: outcome.open_tasks() == 0, timeout_s=REST_S, message="all to end")
        logs = [log_of(client, experiment) for experiment in (short, long)]
        record = ended(made, set())

    assert [str(fault) for fault in check(record)] == []
    assert reruns(record) == 0
    assert {final["state"] for final in record.of("final")} == {"COMPLETED"}
    assert logs == [[f"line {number}" for number in range(1, _LINES + 1)]] * 2


def submit(made: Site, client: Client, name: str, seconds: float) -> str:
    """An experiment of one task that says so many lines over so many seconds; its id."""
    pause = seconds / _LINES
    path = made.folder / f"{name}.yml"
    path.write_text(f"""
name: {name}
parameters:
  LEDGER: {{type: string, default: "{made.ledger}"}}
scripts:
  TALK: |
    #!/bin/sh
    echo "start $AIRAVATA_LEASE" >> "$LEDGER"
    for number in $(seq {_LINES}); do echo "line $number"; sleep {pause:.2f}; done
    echo "end $AIRAVATA_LEASE" >> "$LEDGER"
tasks:
  talk: {{script: TALK}}
""")
    return str(client.experiments.submit_file(path, project=PROJECT).id)


def starts(made: Site) -> list[str]:
    """What the payloads wrote of their starts."""
    lines = made.ledger.read_text().splitlines() if made.ledger.exists() else []
    return [line for line in lines if line.startswith("start ")]


def log_of(client: Client, experiment: str) -> list[str]:
    """The lines of its only task's output."""
    (task,) = client.experiments.tasks(experiment)
    text, _, is_complete = client.tasks.log(str(task.id))
    assert is_complete
    return text.decode().splitlines()
