"""What people see: tables that fit, no control characters, three lines for an error."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airavata_scheduler.client.errors import BadInputError
from airavata_scheduler.client.output import (
    Output,
    column,
    display_width,
    one_line,
    size,
    span,
    table,
)
from tests.client_server import run_here

ROWS: list[dict[str, Any]] = [
    {"id": "1", "name": "a" * 60, "state": "RUNNING", "count": 5},
    {"id": "2", "name": "日本語の名前", "state": "FAILED", "count": 12345},
]
COLUMNS = (column("NAME"), column("STATE"), column("COUNT", is_number=True))


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


@pytest.mark.parametrize("width", [40, 60, 70])
def test_a_table_fits_the_terminal(width: int) -> None:
    """The widest column gives way; wide signs count twice; columns stand straight."""
    lines = table(ROWS, COLUMNS, width=width, coloured=False)

    assert max(display_width(line) for line in lines) <= width
    assert "…" in lines[1]
    assert {display_width(line) for line in lines} == {display_width(lines[0])}


def test_a_pipe_gets_everything() -> None:
    """Nothing is cut where nobody looks at it."""
    assert "a" * 60 in table(ROWS, COLUMNS, width=0, coloured=False)[1]


def test_colours_only_on_a_terminal_without_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR is obeyed."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    plain, coloured, refused = io.StringIO(), Terminal(), Terminal()

    Output(out=plain, err=plain).rows(ROWS, COLUMNS, empty="")
    Output(out=coloured, err=coloured).rows(ROWS, COLUMNS, empty="")
    monkeypatch.setenv("NO_COLOR", "1")
    Output(out=refused, err=refused).rows(ROWS, COLUMNS, empty="")

    assert "\x1b[31mFAILED" in coloured.getvalue()
    assert "\x1b" not in plain.getvalue() + refused.getvalue()


def test_json_and_quiet() -> None:
    """JSON is one document with `items`; quiet prints ids."""
    as_json, quiet = io.StringIO(), io.StringIO()

    Output(as_json=True, out=as_json, err=as_json).rows(ROWS, COLUMNS, empty="")
    Output(quiet=True, out=quiet, err=quiet).rows(ROWS, COLUMNS, empty="")

    assert json.loads(as_json.getvalue()) == {"items": ROWS}
    assert quiet.getvalue() == "1\n2\n"


def test_an_error_is_three_lines_without_control_characters() -> None:
    """A name that the server echoes cannot drive the terminal or make a fourth line."""
    err = io.StringIO()
    error = BadInputError("bad \x1b[2J name\nhere", reason="because", hint="do this")

    Output(out=err, err=err).error(error)

    assert err.getvalue() == "error: bad �[2J name here\n  because\n  do this\n"


def test_words_for_sizes_and_times() -> None:
    """Numbers as people say them."""
    assert [size(5), size(1500), size(2_500_000), size(None)] == ["5 B", "1.5 kB", "2.5 MB", "?"]
    assert [span(3.21), span(45), span(600), span(7500)] == [
        "3.2 s",
        "45 s",
        "10 min",
        "2 h 05 min",
    ]
    assert one_line("a\n b\tc") == "a b c"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["projct"], "Did you mean project?"),
        (["project", "lits"], "Did you mean list?"),
        (["project", "create"], "NAME"),
        (["--token", "abc", "whoami"], "seen by every user"),
        (["experiment", "run", "no-such-file.yml"], "There is no file"),
        (["function", "register", "f.py"], "Which function"),
        (["task", "get", "a/b/c"], "does not name a task"),
    ],
)
def test_wrong_usage_is_exit_status_2_in_three_lines(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every mistake on the command line: a sentence, no traceback."""
    monkeypatch.setenv("AIRAVATA_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("AIRAVATA_SERVER", "http://127.0.0.1:1")

    ran = run_here(*arguments)

    assert ran.status == 2
    assert message in ran.err
    assert len(ran.err.splitlines()) <= 3


def test_a_server_that_is_away_is_exit_status_5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to type next."""
    monkeypatch.setenv("AIRAVATA_CONFIG_DIR", str(tmp_path))
    monkeypatch.setattr("airavata_scheduler.client.command_line.AWAY_FOR_S", 0.0)

    ran = run_here("whoami", "--server", "http://127.0.0.1:1")

    assert ran.status == 5
    assert "airavata-scheduler local" in ran.err


def test_help_imports_nothing_slow() -> None:
    """`airavata --help` answers at once: neither httpx nor yaml nor rich is imported."""
    code = (
        "import sys; from airavata_scheduler.client.main import main; main(['--help']); "
        "print([name for name in ('httpx', 'yaml', 'rich', 'cloudpickle') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    """Each names our completion variable."""
    assert "_AIRAVATA_COMPLETE" in run_here("completion", shell).out
