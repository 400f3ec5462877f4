"""Users' Python functions: what their authors see when one of them raises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airavata_scheduler.agent.python_function import Function, LoadError, failure_of


def _raised(source: str, folder: Path, **arguments: Any) -> dict[str, Any]:
    """The failure of `f(**arguments)`."""
    function = Function.load({"entry": "f", "source": source, "codec": "json"}, None)
    try:
        function.call({"arguments": {"encoding": "json", "data": arguments}}, folder)
    except BaseException as error:  # noqa: BLE001  as the worker does
        assert error.__traceback__ is not None
        return failure_of(error.with_traceback(error.__traceback__.tb_next), "json")
    raise AssertionError("f raised nothing")


def test_a_traceback_begins_with_the_users_own_line(tmp_path: Path) -> None:
    """No frame of the agent stands before the function's."""
    source = "def g(x):\n    return 1 / x\n\ndef f(x):\n    return g(x)\n"

    lines = _raised(source, tmp_path, x=0)["traceback"].splitlines()

    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].strip() == 'File "<airavata_function>", line 5, in f'
    assert lines[-1] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f():\n    return 1\n", "unexpected keyword argument 'x'"),
        ("def f(x):\n    return {1, 2}\n", "does not fit into JSON"),
    ],
)
def test_what_went_wrong_outside_the_function_names_no_line_of_ours(
    source: str, message: str, tmp_path: Path
) -> None:
    """Wrong arguments and a result that cannot be sent are told without any frame."""
    failure = _raised(source, tmp_path, x=0)

    assert message in failure["message"]
    assert "File " not in failure["traceback"]


def test_a_module_that_does_not_load_shows_its_own_line() -> None:
    """The traceback of a function's module begins in that module."""
    with pytest.raises(LoadError) as caught:
        Function.load({"entry": "f", "source": "\nimport no_such_module\n"}, None)

    lines = caught.value.failure["traceback"].splitlines()
    assert lines[1].strip() == 'File "<airavata_function>", line 2, in <module>'
