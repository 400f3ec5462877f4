"""The lease protocol holds in every reachable state, and each of its mechanisms is needed."""

from __future__ import annotations

import pytest

from tests.unit.lease_model import Rules
from tests.unit.lease_search import search


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param(Rules(), id="one expiry"),
        pytest.param(Rules(cancel=True), id="a cancel"),
        pytest.param(Rules(host_crashes=1, expiries=0), id="a host crash"),
        pytest.param(Rules(crashes=1, expiries=0), id="an agent crash"),
        pytest.param(Rules(host_crashes=1, expiries=0, cancel=True), id="a host crash, a cancel"),
        pytest.param(
            Rules(cancel=True, payloads_end=False), id="payloads that only a cancel can end"
        ),
        pytest.param(Rules(failovers=1, expiries=0), id="a failover that loses commits"),
        pytest.param(
            Rules(agents=1, failovers=1, expiries=0, cancel=True),
            id="one agent, a failover and a cancel",
        ),
        pytest.param(Rules(agents=1, failovers=2, expiries=0), id="one agent and two failovers"),
        # What a claim may start by itself, because it needs neither inputs nor secrets.
        pytest.param(Rules(start_gate=False), id="an open gate"),
    ],
)
def test_the_protocol_is_safe_and_never_stuck(rules: Rules) -> None:
    """No two results, no lost acknowledgement, no second run, and always a way to the end."""
    found = search(rules)

    assert found.is_sound, found


@pytest.mark.parametrize(
    ("rules", "broken"),
    [
        pytest.param(
            Rules(fence="none"), "a result was accepted from an older lease", id="no fence"
        ),
        pytest.param(
            Rules(fence="attempt", failovers=1, expiries=0),
            "a result was accepted from an older lease",
            id="attempt numbers alone",
        ),
        pytest.param(
            Rules(exclusive_lock=False), "a lease ran twice on its host", id="no exclusive lock"
        ),
        pytest.param(
            Rules(cancel=True, cancel_stops_requeue=False),
            "a cancelled task went on",
            id="a cancelled task is queued again",
        ),
        pytest.param(
            Rules(cancel=True, cancel_spares_results=False),
            "two results were accepted",
            id="a cancel undoes a result",
        ),
        pytest.param(
            Rules(epoch_changes=False, agents=1, failovers=1, expiries=0),
            "an acknowledged result is not the stored one",
            id="a failover keeps the epoch",
        ),
        pytest.param(
            Rules(answers_name_epoch=False, agents=1, failovers=1, expiries=0),
            "an acknowledged result is not the stored one",
            id="an acknowledgement without its epoch",
        ),
        pytest.param(
            Rules(claims_outrank_forgotten=False, failovers=1),
            "a result was accepted from an older lease",
            id="a forgotten lease outranks a later claim",
        ),
        pytest.param(
            Rules(reattach="newest", agents=1, failovers=1, expiries=0),
            "an acknowledged result was refused later",
            id="forgotten is gone",
        ),
        pytest.param(
            Rules(waits_for_the_told=False, failovers=1, expiries=0),
            "an acknowledged result was refused later",
            id="claims before all was told again",
        ),
    ],
)
def test_a_missing_mechanism_breaks_safety(rules: Rules, broken: str) -> None:
    """Without it the search finds a state that must not be, and says how one gets there."""
    found = search(rules)

    assert found.broken == broken
    assert found.path


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param(Rules(replays_claims=False, lists=False), id="claims are not replayed"),
        pytest.param(Rules(journal=False, lists=False, crashes=1, agents=1), id="no journal"),
        pytest.param(Rules(rereport=False, failovers=1, expiries=0), id="no second report"),
        pytest.param(
            Rules(lists=False, failovers=1, agents=1), id="nobody misses a lease that came back"
        ),
        pytest.param(
            Rules(cancel=True, cancel_is_told=False, payloads_end=False, expiries=0),
            id="nobody tells the agent of a cancel",
        ),
    ],
)
def test_a_missing_mechanism_loses_work(rules: Rules) -> None:
    """Without it there are states from which the task never ends, though the work was done."""
    found = search(rules)

    assert found.complete
    assert found.broken is None
    assert found.stuck > 0


def test_without_reattachment_a_silent_agents_work_is_thrown_away() -> None:
    """With it the newest lease of an unclaimed task still counts, however late its report comes."""
    assert search(Rules(agents=1)).wasted == 0
    assert search(Rules(agents=1, reattach="never")).wasted > 0


@pytest.mark.nightly
@pytest.mark.parametrize(
    "rules",
    [
        pytest.param(Rules(expiries=2), id="two expiries"),
        pytest.param(Rules(crashes=1), id="an agent crash and an expiry"),
        pytest.param(Rules(host_crashes=1), id="a host crash and an expiry"),
        pytest.param(
            Rules(failovers=1, expiries=0, cancel=True), id="a failover that loses a cancel"
        ),
        pytest.param(Rules(failovers=1, spare_claims=1), id="a failover and an expiry"),
        pytest.param(Rules(failovers=2, expiries=0), id="two failovers"),
        pytest.param(Rules(host_crashes=1, cancel=True), id="a host crash, a cancel, an expiry"),
        pytest.param(Rules(claims=2, attempts=3, expiries=2), id="two claims each"),
    ],
)
def test_the_protocol_is_safe_in_larger_worlds(rules: Rules) -> None:
    """More goes wrong; up to four million states, some minutes and some gigabytes."""
    found = search(rules, limit=4_000_000)

    assert found.broken is None, found
    assert not found.stuck, found
