"""The corpus through the users' API and the agents' API: never a 5xx, never half a deed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from tests.bad_input.case import Case
from tests.bad_input.corpus import CASES
from tests.bad_input.judge import faults
from tests.bad_input.world import World

REFUSED = [case for case in CASES if case.code is not None]
TAKEN = [case for case in CASES if case.code is None]


def test_every_input_is_refused_without_a_trace_or_does_no_harm(world: World) -> None:
    """Refusals have the corpus's code and field, and leave every row and file as it was.

    What only looks evil is taken afterwards: it is stored and given back as plain data.
    """
    found: list[str] = []
    before = world.traces()
    for family, cases in by_family(REFUSED):
        found += judged(world, cases)
        after = world.traces()
        changed = [name for name, rows in after.items() if rows != before[name]]
        if changed:
            found.append(f"family {family} left something in {', '.join(changed)}")
        before = after
    found += judged(world, TAKEN)

    assert not found, "\n".join(found)


def by_family(cases: Iterable[Case]) -> Iterator[tuple[int, list[Case]]]:
    """The cases of each family together."""
    ordered = sorted(cases, key=lambda case: case.family)
    for family, some in itertools.groupby(ordered, key=lambda case: case.family):
        yield family, list(some)


def judged(world: World, cases: Iterable[Case]) -> list[str]:
    """What is wrong with the answers, each with the name of its case."""
    found = []
    for case in cases:
        try:
            answer = world.answer(case)
            wrong = faults(case, answer)
            if case.holds is not None and not wrong:
                case.holds(world, answer)
        except Exception as error:  # noqa: BLE001 - also an answer that breaks off in its middle
            wrong = [f"{type(error).__name__}: {error}"]
        found += [f"{case}: {fault}" for fault in wrong]
    return found


def test_the_corpus_is_sound() -> None:
    """A failure leads to one entry, and no entry asks for a 5xx."""
    names = [str(case) for case in CASES]

    assert sorted(names) == sorted(set(names))
    assert all((case.status < 300) == (case.code is None) for case in CASES)
    assert all(case.status < 500 for case in CASES)
