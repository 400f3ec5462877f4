"""Every family of the catalogue is tried, or is named with the reason why it cannot be."""

from __future__ import annotations

import re
from pathlib import Path

from tests.bad_input.corpus import CASES
from tests.bad_input.families import files
from tests.bad_input.families.catalogue import ELSEWHERE, FAMILIES, NOT_HERE

_ROOT = Path(__file__).parents[2]
_TRIED = [case.family for case in CASES] + [case.family for case in files.CASES]


def test_every_family_is_tried() -> None:
    """By requests, by files and arguments, by tests of their own, or it has no place here."""
    tried = set(_TRIED)

    assert list(FAMILIES) == list(range(1, 69))
    assert set(FAMILIES) == tried | set(ELSEWHERE) | set(NOT_HERE)
    assert not set(NOT_HERE) & (tried | set(ELSEWHERE))


def test_tests_of_families_are_there() -> None:
    """The table names tests that exist."""
    missing = []
    for family, tests in ELSEWHERE.items():
        for test in tests:
            file, _, name = test.partition("::")
            text = (_ROOT / file).read_text(encoding="utf-8")
            if not re.search(rf"^def {name}\(", text, re.MULTILINE):
                missing.append((family, test))

    assert missing == []


def test_a_family_has_several_inputs() -> None:
    """One example is luck."""
    counts = dict.fromkeys(FAMILIES, 0)
    for family in _TRIED:
        counts[family] += 1

    assert {n: count for n, count in counts.items() if count < 2 and n not in ELSEWHERE} == {}
