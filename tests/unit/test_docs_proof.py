"""docs/proof.md is what the campaigns kept, and the tests that it names are there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.campaign import page

pytestmark = pytest.mark.docs


def test_the_page_is_fresh() -> None:
    """Made by `python -m tests.campaign.page`."""
    assert page.PAGE.read_text() == page.page()


@pytest.mark.parametrize("name", sorted(page.named_tests()))
def test_every_test_that_it_names_is_there(name: str) -> None:
    """A failure is shown by a test that runs."""
    path, _, function = name.partition("::")
    tree = ast.parse((page.ROOT / Path(path)).read_text())

    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
