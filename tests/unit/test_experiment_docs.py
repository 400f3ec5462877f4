"""The page of the format: its examples are read, and no key is missing from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airavata_scheduler.models.experiment_file import TOP_KEYS, parse_text, read_experiment
from airavata_scheduler.models.experiment_resources import (
    COMPUTE_KEYS,
    PLACEMENT_KEYS,
    RESOURCE_KEYS,
)
from airavata_scheduler.models.experiment_tasks import TASK_KEYS
from airavata_scheduler.models.function_file import function_node, read_function
from airavata_scheduler.models.parameters import KEYS, TYPES

pytestmark = pytest.mark.docs

PAGE = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
FUNCTION = read_function(
    {"name": "heat", "script": "#!/bin/sh\n", "parameters": {"SEED": {"type": "int"}}}
)


@pytest.mark.parametrize("text", BLOCKS, ids=lambda text: text.split("\n")[0])
def test_each_example_of_the_page_is_a_good_document(text: str) -> None:
    """What users copy from the page runs as it is."""
    files = {name: {"sha256": "0" * 64, "size": 1} for name in ("simulate.py", "plot.py", "run.py")}

    spec = read_experiment(parse_text(text), functions=lambda _: FUNCTION, files=files)

    assert spec.total in {601, 11, 50}
    assert function_node(FUNCTION).script


def test_the_first_example_has_the_number_of_tasks_that_the_page_says() -> None:
    """300 + 300 + 1."""
    files = {name: {"sha256": "0" * 64, "size": 1} for name in ("simulate.py", "plot.py")}

    spec = read_experiment(parse_text(BLOCKS[0]), functions=lambda _: FUNCTION, files=files)

    assert list(spec.totals.values()) == [300, 300, 1]


@pytest.mark.parametrize(
    "key",
    sorted(
        {*TOP_KEYS, *TASK_KEYS, *RESOURCE_KEYS, *COMPUTE_KEYS, *PLACEMENT_KEYS, *KEYS, *TYPES}
        - {"command_template"}  # another spelling of commandTemplate
    ),
)
def test_each_key_is_on_the_page(key: str) -> None:
    """A key that a user may write is described."""
    assert re.search(rf"(?<![A-Za-z_]){re.escape(key)}(?![A-Za-z_])", PAGE)
