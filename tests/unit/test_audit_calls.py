"""Every call of `audit.append` in the code: no secret in its detail, its action documented."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[2]
SECRET_WORDS: Final = {
    *("code", "codes", "hash", "key", "otp", "passphrase", "password", "pin", "private"),
    *("secret", "seed", "token", "totp", "value", "values"),
}
HARMLESS: Final = {"token_id"}  # names an access token, and opens nothing
# What is passed as `**…`: names and ids of members; how many rows went; is_admin and state.
EXPANDED: Final = {"audited(subject)", "audited(user)", "audited(group)", "lost", "power"}
# Where an action is an argument of a function that calls `audit.append`: which argument.
PASSED_ON: Final = {
    ("shares.py", "_audit"): 0,
    ("experiments_control.py", "_changed"): 0,
    ("proofs.py", "_failed"): 0,
    ("agents.py", "_move"): 1,
    ("own_account.py", "second_factor.switch_off"): 1,
}
BY_NAME: Final = {("credential_values.py", "_change"): "reason"}
VARIABLES: Final = {"action", "reason"}


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Every call in the rooms that write the audit: file, the called, the call."""
    for room in ("functions", "commands"):
        for path in sorted((ROOT / room).glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    yield path.name, ast.unparse(node.func), node


def texts(node: ast.expr) -> set[str]:
    """The text that an argument is; none where it is a variable."""
    return {str(node.value)} if isinstance(node, ast.Constant) else set()


def actions() -> set[str]:
    """Every action that the code writes."""
    found: set[str] = set()
    for file, called, node in calls():
        if called == "audit.append":
            found |= texts(node.args[0])
        position, name = PASSED_ON.get((file, called)), BY_NAME.get((file, called))
        if position is not None:
            found |= texts(node.args[position])
        for item in node.keywords:
            if name is not None and item.arg == name:
                found |= texts(item.value)
    return found


def test_no_detail_is_called_like_a_secret() -> None:
    """Details are names, ids, numbers and kinds."""
    found = []
    for name, called, node in calls():
        if called != "audit.append":
            continue
        for item in node.keywords:
            if item.arg is None and ast.unparse(item.value) not in EXPANDED:
                found.append((name, f"**{ast.unparse(item.value)}"))
            elif item.arg and item.arg not in HARMLESS and set(item.arg.split("_")) & SECRET_WORDS:
                found.append((name, item.arg))

    assert found == []


def test_every_action_can_be_read_from_the_code() -> None:
    """An action that is a variable comes by a way that this test knows."""
    unknown = [
        (name, ast.unparse(node.args[0]))
        for name, called, node in calls()
        if called == "audit.append"
        and not isinstance(node.args[0], ast.Constant)
        and ast.unparse(node.args[0]) not in VARIABLES
    ]

    assert unknown == []


def test_every_action_is_documented() -> None:
    """docs/audit.md has each action that the code writes, and no other."""
    text = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
    first_cells = re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE)

    documented = {name for cell in first_cells for name in re.findall(r"`([^`]+)`", cell)}
    assert documented == actions()
