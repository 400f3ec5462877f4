"""`airavata-scheduler authz validate`: the schema means what db/spicedb_validation.yaml says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from airavata_scheduler.backends import spicedb_schema
from airavata_scheduler.commands import authz, programs, validation, validation_file
from airavata_scheduler.models.errors import BadInput

DB = Path(validation.__file__).parents[1] / "db"
# Nobody may be without these.
_ALWAYS = {("system", "read")}


@pytest.fixture(autouse=True)
def with_spicedb_and_no_zed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only SpiceDB can be found, wherever it is."""
    program = Path(programs.spicedb_program())
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "spicedb").symlink_to(program)
    monkeypatch.setenv("PATH", str(folder))


def definitions() -> dict[str, tuple[set[str], set[str]]]:
    """The relations and the permissions of each definition of the schema."""
    text = re.sub(r"/\*\*.*?\*/", "", spicedb_schema.text(), flags=re.DOTALL)
    bodies = re.findall(r"^definition (\w+) \{(.*?)\}", text, flags=re.DOTALL | re.MULTILINE)
    return {
        kind: (
            set(re.findall(r"relation (\w+):", body)),
            set(re.findall(r"permission (\w+) =", body)),
        )
        for kind, body in bodies
    }


def validated(file: Path) -> Result:
    """What the command does with a file."""
    return CliRunner().invoke(authz.command, ["validate", str(file)])


def changed(folder: Path, before: str, after: str) -> tuple[Path, int]:
    """A copy of the file in which one statement is another, and that statement's line."""
    text = (DB / "spicedb_validation.yaml").read_text(encoding="utf-8")
    assert text.count(before) == 1, before
    (folder / "spicedb_schema.zed").write_text(spicedb_schema.text(), encoding="utf-8")
    copy = folder / "copy.yaml"
    copy.write_text(text.replace(before, after), encoding="utf-8")
    return copy, text[: text.index(before)].count("\n") + 1


def test_the_schema_means_what_the_file_says() -> None:
    """All of it; and the copy of the schema beside it is the one that is used."""
    result = CliRunner().invoke(authz.command, ["validate"])

    assert result.exit_code == 0, result.output
    assert re.fullmatch(r"All \d+ statements of .* hold\.\n", result.output)
    assert (DB / "spicedb_schema.zed").read_text(encoding="utf-8") == spicedb_schema.text()


def test_the_file_covers_the_schema() -> None:
    """Every relation is used, and every permission is asserted, denied and expected."""
    told = validation_file.read(DB / "spicedb_validation.yaml")
    schema = definitions()
    relations = {(kind, name) for kind, (names, _) in schema.items() for name in names}
    permissions = {(kind, name) for kind, (_, names) in schema.items() for name in names}
    # What serves other permissions only is seen through them.
    routes = {item for item in permissions if item[1] not in ("administration", "participation")}

    used = {(fact.relationship.kind, fact.relationship.relation) for fact in told.facts}
    said = {(item.asked.kind, item.asked.relation, item.said) for item in told.assertions}
    expected = {(item.kind, item.permission) for item in told.expectations}

    assert relations - used == {("relay", "rebuild")}
    assert permissions - expected == set()
    assert {item for item in routes if (*item, True) not in said} == set()
    assert {item for item in routes if (*item, False) not in said} == _ALWAYS


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            '    - "project:spine#own@user:bea"',
            '    - "project:spine#own@user:ada"',
            "project:spine#own@user:ada is true, not false",
        ),
        (
            '    - "group:lab1#membership@group:lab5#membership"',
            '    - "group:lab5#membership@group:lab1#membership"',
            "group:lab5#membership@group:lab1#membership is false, not true",
        ),
        (
            '  project:spine#administration:\n    - "[user:ada] is <project:spine#owner>"',
            "  project:spine#administration:",
            "project:spine#administration also has [user:ada], which is not expected",
        ),
        (
            "  relay:outbox#whole:",
            '  project:bone#administration:\n    - "[user:eli] is <group:lab5#member>"\n'
            '    - "[user:pam] is <group:lab5#owner>"\n'
            '    - "[group:lab5#membership] is <project:bone#owner>"\n  relay:outbox#whole:',
            "",
        ),
        (
            "  user:ada#project@project:spine",
            "  user:ada#projects@project:spine",
            "SpiceDB refuses user:ada#projects@project:spine: relation/permission `projects` "
            "not found",
        ),
        (
            '    - "project:spine#own@user:root"',
            '    - "project:spine#owned@user:root"',
            "SpiceDB cannot answer project:spine#owned@user:root: ",
        ),
        (
            "  relay:outbox#whole:",
            "  relay:outbox#wholly:",
            "SpiceDB cannot answer relay:outbox#wholly: ",
        ),
        (
            "  project:rib#owner@user:ada",
            "  project:rib owner user:ada",
            "not a relationship: 'project:rib owner user:ada'",
        ),
        ("  assertFalse:", "  assertNot:", "assertNot is not one of assertTrue, assertFalse."),
        (
            '    - "[mark:ours/1] is <relay:outbox#projection>"',
            '    - "mark:ours/1"',
            "'mark:ours/1' is not like [user:ada] is <project:spine#owner>",
        ),
        (
            '    - "[mark:ours/1] is <relay:outbox#projection>"',
            '    - "[mark:ours/2] is <relay:outbox#projection>"\n'
            '    - "[mark:ours/1] is <relay:outbox#projection>"',
            "relay:outbox#whole does not have [mark:ours/2]",
        ),
        ("schemaFile: spicedb_schema.zed", "schemas: x", "a validation file has no part 'schemas'"),
    ],
)
def test_a_statement_that_does_not_hold_is_named_with_its_line(
    tmp_path: Path, before: str, after: str, said: str
) -> None:
    """A wrong assertion, a wrong expectation, and what cannot be read or asked at all."""
    file, line = changed(tmp_path, before, after)

    result = validated(file)

    if not said:
        assert result.exit_code == 0, result.output
        return
    text = str(result.exception) if isinstance(result.exception, BadInput) else result.output
    assert result.exit_code != 0
    assert text.startswith(f"{file}:{line}: {said}"), text
    assert len(text.splitlines()) == 1


def test_a_schema_that_spicedb_refuses(tmp_path: Path) -> None:
    """Its own words are shown."""
    file = tmp_path / "v.yaml"
    file.write_text("schema: |-\n  definition user {\n  	relation abc: nobody\n  }\n")

    result = validated(file)

    assert isinstance(result.exception, BadInput)
    assert "SpiceDB refuses the schema" in result.exception.detail
    assert "nobody" in result.exception.detail


@pytest.mark.parametrize(
    "text", ["", "schemaFile: absent.zed\n", "a: [\n", "schema: [1]\n", "- 1\n"]
)
def test_a_file_that_is_none(tmp_path: Path, text: str) -> None:
    """One sentence says what is wrong with it."""
    file = tmp_path / "v.yaml"
    file.write_text(text)

    result = validated(file)

    assert isinstance(result.exception, BadInput)
    assert result.exception.detail.startswith(str(tmp_path))


def test_zed_is_used_where_it_is(tmp_path: Path) -> None:
    """Its verdict is ours."""
    zed = tmp_path / "bin" / "zed"
    zed.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/called\nexit 3\n')
    zed.chmod(0o755)

    result = validated(tmp_path / "x.yaml")

    assert result.exit_code == 3
    assert (tmp_path / "called").read_text() == f"validate {tmp_path / 'x.yaml'}\n"
