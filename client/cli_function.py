"""`airavata function`."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from airavata_scheduler.client.api_functions import BATCH_LIMIT, call_body
from airavata_scheduler.client.api_work import upload_blob
from airavata_scheduler.client.command_line import (
    Session,
    duration_option,
    group,
    pass_session,
)
from airavata_scheduler.client.errors import BadInputError
from airavata_scheduler.client.experiment_sources import read_source
from airavata_scheduler.client.function_calls import collect, print_call, wait_for
from airavata_scheduler.client.json_body import decoded
from airavata_scheduler.client.output import column
from airavata_scheduler.client.python_file import read_python_function, typed_arguments
from airavata_scheduler.client.records import Function

function = group("function", "Register functions and call them.")
_COLUMNS = (
    column("NAME"),
    column("VERSION", "latest_version", is_number=True),
    column("PROJECT"),
    column("UPDATED", "updated_at"),
    column("ID"),
)


@function.command("register")
@click.argument("source", metavar="FILE.py:NAME | FILE.yml")
@click.option("--name", help="Another name than the function's own.")
@pass_session
def register(session: Session, source: str, name: str | None) -> None:
    """Register a Python function of a file, or the function of a YAML or JSON file.

    Registered again it gets a new version, unless nothing changed. A Python file is read, not run.
    """
    path, _, entry = source.partition(":")
    if path.endswith(".py"):
        made = _register_python(session, Path(path), entry, name)
    elif entry:
        raise BadInputError(
            f"“{path}” is not a Python file.", hint="Write FILE.py:NAME, or FILE.yml alone."
        )
    else:
        made = _register_document(session, Path(path), name)
    session.output.done(
        f"Function {made.name} has version {made.latest_version}. "
        f"Call it: airavata function call {made.name}{_example(made)}",
        made.raw,
    )


def _register_python(session: Session, path: Path, entry: str, name: str | None) -> Function:
    if not entry:
        raise BadInputError(
            f"Which function of {path}?", hint=f"airavata function register {path}:NAME"
        )
    spec = read_python_function(path, entry)
    client = session.client
    return client.functions.register(project=client.project, name=name or entry, spec=spec)


def _register_document(session: Session, path: Path, name: str | None) -> Function:
    client = session.client
    source = read_source(path)
    for local in source.files.values():
        upload_blob(client.transport, client.project, local.path, local.sha256, local.size)
    spec = source.document()
    return client.functions.register(
        project=client.project,
        name=name or str(spec.get("name") or path.stem),
        spec=spec,
        attachments=source.attachments(),
    )


def _example(made: Function) -> str:
    """` NAME=… NAME=…` for the parameters that must be given."""
    declared = (made.spec or {}).get("parameters") or {}
    names = [name for name, value in declared.items() if value.get("default") is None]
    return "".join(f" {name}=…" for name in names)


@function.command("list")
@pass_session
def list_(session: Session) -> None:
    """List functions."""
    found = session.client.functions.list(project=session.flags.get("project"))
    rows = (entry.raw for entry in found)
    session.output.rows(
        rows, _COLUMNS, empty="None yet. Register one: airavata function register FILE.py:NAME"
    )


@function.command("get")
@click.argument("name")
@pass_session
def get(session: Session, name: str) -> None:
    """Show a function, or one version of it (NAME@2)."""
    found = session.client.functions.get(name, project=session.client.settings.project)
    session.output.record(found.raw)


@function.command("versions")
@click.argument("name")
@pass_session
def versions(session: Session, name: str) -> None:
    """List the versions of a function, newest first."""
    project = session.client.settings.project
    found = session.client.functions.versions(name, project=project)
    columns = (column("VERSION", is_number=True), column("CREATED", "created_at"), column("ID"))
    session.output.rows((entry.raw for entry in found), columns, empty="None.")


def _pairs(pairs: tuple[str, ...]) -> dict[str, str]:
    """NAME=VALUE arguments. Raises `click.BadParameter`."""
    texts: dict[str, str] = {}
    for pair in pairs:
        name, found, text = pair.partition("=")
        if not found or not name:
            raise click.BadParameter(f"“{pair}” is not NAME=VALUE.")
        texts[name] = text
    return texts


@function.command("call")
@click.argument("name")
@click.argument("arguments", nargs=-1, metavar="[NAME=VALUE]…")
@duration_option("--wait", text="Wait for the result, at most so long, such as 30s.")
@click.option("--compute", help="Where it shall run.")
@pass_session
def call(
    session: Session,
    /,
    *,
    name: str,
    arguments: tuple[str, ...],
    wait: float | None,
    compute: str | None,
) -> int:
    """Call a function once. With --wait its result is printed, else the call's id."""
    client = session.client
    project = client.settings.project
    found = client.functions.get(name, project=project)
    declared = (found.spec or {}).get("parameters") or {}
    body = call_body(typed_arguments(_pairs(arguments), declared), compute=compute)
    made = client.calls.create(name, body, project=project)
    if wait is None:
        session.output.done(made.id, made.raw)
        session.output.note(f"Its result: airavata function result {made.id} --wait 30s")
        return 0
    return print_call(session, wait_for(session, made, wait))


@function.command("result")
@click.argument("call_id")
@duration_option("--wait", text="Wait for the result, at most so long, such as 30s.")
@pass_session
def result(session: Session, call_id: str, wait: float | None) -> int:
    """Print the result of a call."""
    found = session.client.calls.get(call_id)
    return print_call(session, wait_for(session, found, wait or 0.0))


@function.command("cancel")
@click.argument("call_id")
@pass_session
def cancel(session: Session, call_id: str) -> None:
    """Stop a call; a result that was accepted first stays."""
    changed = session.client.calls.cancel(call_id)
    session.output.done(f"Call {changed.id} is {changed.state}.", changed.raw)


@function.command("map")
@click.argument("name")
@click.option(
    "--inputs",
    "file",
    type=click.Path(path_type=Path),
    required=True,
    help="Arguments: a CSV with a head line, or one JSON object a line (.jsonl).",
)
@duration_option("--wait", text="Wait no longer than this; the calls go on.")
@click.option("--compute", help="Where they shall run.")
@pass_session
def map_(
    session: Session, /, *, name: str, file: Path, wait: float | None, compute: str | None
) -> int:
    """Call a function once for each line of a file, and print the results in its order."""
    client = session.client
    project = client.settings.project
    found = client.functions.get(name, project=project)
    declared = (found.spec or {}).get("parameters") or {}
    rows = list(read_inputs(file, declared))
    if not rows:
        raise BadInputError(f"{file} has no lines of arguments.")
    ids: list[str] = []
    for start in range(0, len(rows), BATCH_LIMIT):
        bodies = [call_body(row) for row in rows[start : start + BATCH_LIMIT]]
        ids += client.calls.create_batch(name, bodies, project=project, compute=compute)
    session.output.note(f"{len(ids)} calls of {name} are made.")
    return collect(session, rows, ids, timeout_s=wait)


def read_inputs(file: Path, declared: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The arguments of each line of a CSV or JSON-lines file.

    Raises `BadInputError` with the number of the line that is wrong.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            if file.suffix.lower() in (".jsonl", ".ndjson", ".json"):
                yield from _json_lines(file, stream)
            else:
                yield from _csv_lines(file, stream, declared)
    except OSError as error:
        raise BadInputError(f"{file} cannot be read.", reason=error.strerror) from error
    except UnicodeDecodeError as error:
        raise BadInputError(f"{file} is not UTF-8 text.") from error


def _json_lines(file: Path, stream: Any) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            row = decoded(line)
        except ValueError as error:
            raise BadInputError(f"{file}, line {number}: {error}.") from error
        if not isinstance(row, dict):
            raise BadInputError(f"{file}, line {number} is not a JSON object.")
        yield row


def _csv_lines(file: Path, stream: Any, declared: dict[str, Any]) -> Iterator[dict[str, Any]]:
    reader = csv.DictReader(stream, strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise BadInputError(
                    f"{file}, line {reader.line_num} has another number of columns than the head."
                )
            yield typed_arguments(row, declared)
    except csv.Error as error:
        raise BadInputError(f"{file}, line {reader.line_num}: {error}.") from error
