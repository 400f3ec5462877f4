"""Which answers an agent believes."""

from __future__ import annotations

from typing import Any

import pytest

from airavata_scheduler.agent.answers import is_answer

CLAIM = {"epoch": "e", "leases": [{"lease": "t.1.x", "spec": "s"}], "specs": {"s": {}}}
REPORTS = {"epoch": "e", "items": [{"lease": "t.1.x", "verdict": "accepted"}], "claim": None}


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/leases/claim", CLAIM),
        ("/leases/claim", {**CLAIM, "leases": [], "specs": {}, "news": 1}),
        ("/reports", REPORTS),
        ("/reports", {**REPORTS, "claim": CLAIM}),
        ("/leases/t.1.x/log/stdout", {"offset": 7}),
        ("/leases/t.1.x/artifacts?output=R&path=a", {"sha256": "00", "size": 1}),
        ("/leases/t.1.x/inputs/0", {}),
        ("/unenroll", {}),
    ],
)
def test_what_the_api_says_is_believed(path: str, answer: dict[str, Any]) -> None:
    """Members that are new since do not matter; where bytes come there is nothing to see."""
    assert is_answer(path, answer)


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/session", {}),
        ("/heartbeat", {"epoch": "e", "leases": [], "agent": None}),
        ("/leases/claim", {**CLAIM, "leases": None}),
        ("/leases/claim", {**CLAIM, "leases": [1]}),
        ("/leases/claim", {**CLAIM, "leases": [{}]}),
        ("/reports", {**REPORTS, "items": [{"verdict": "accepted"}]}),
        ("/reports", {**REPORTS, "claim": 1}),
        ("/leases/t.1.x/log/stdout", {"offset": None}),
        ("/leases/t.1.x/artifacts?output=R&path=a", {}),
        ("/token", {"access_token": 1}),
    ],
)
def test_what_something_else_says_is_not(path: str, answer: dict[str, Any]) -> None:
    """A page of a proxy is no verdict, and no upload."""
    assert not is_answer(path, answer)
