"""What travels beside a document: files of the user's machine, and tables of parameter sets.

A document names them by paths on the user's machine. The client sends each file as a blob and says
its SHA-256 and size; it sends the text of each CSV table. Here the names become what they stand
for, so that a stored document is complete.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from typing import Any

from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.faults import Faults, Section, shown
from airavata_scheduler.models.parameters import check_name
from airavata_scheduler.models.paths import destination_path, relative_path, twin_key

MAX_FILES = 200
MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_ROWS = 100_000
MAX_COLUMNS = 200

FILE_KEYS = ("destination", "sha256", "size", "source")
_SHA256 = re.compile(r"[0-9a-f]{64}")

SentFiles = Mapping[str, Mapping[str, Any]]


def read_files(
    faults: Faults, path: str, value: Any, sent: SentFiles | None
) -> list[dict[str, Any]]:
    """The `files` section as [{destination, source, sha256, size}].

    Entries are `simulate.py`, `{destination: path}`, or already complete as in the answer.
    """
    entries: list[dict[str, Any]] = []
    for where, named in _named_files(faults, path, value):
        entry = _complete(faults, where, named, sent)
        if entry is None:
            continue
        twins = [
            e["destination"] for e in entries if _twins(e["destination"], entry["destination"])
        ]
        if twins:
            detail = f"{shown(entry['destination'])} and {shown(twins[0])} are the same place"
            faults.add(where, "duplicate_destination", detail)
        entries.append(entry)
    return entries


def _twins(one: str, other: str) -> bool:
    return twin_key(one) == twin_key(other)


def _named_files(faults: Faults, path: str, value: Any) -> list[tuple[str, dict[str, Any]]]:
    """Every entry with its field path; `source` alone where nothing else was said."""
    named: list[tuple[str, dict[str, Any]]] = []
    listed = value if isinstance(value, list) else [value] if value is not None else []
    for position, entry in enumerate(listed):
        where = f"{path}[{position}]" if isinstance(value, list) else path
        if isinstance(entry, str):
            named.append((where, {"source": entry, "destination": entry}))
        elif isinstance(entry, dict) and "sha256" in entry:
            named.append((where, Section(faults, where, entry, FILE_KEYS).value))
        elif isinstance(entry, dict):
            for destination, source in entry.items():
                there = f"{where}.{destination}"
                named.append((there, {"source": source, "destination": destination}))
        else:
            faults.add(where, "not_a_text", f"must be a path, not {shown(entry)}")
    if len(named) > MAX_FILES:
        faults.add(path, "too_many", f"{len(named)} files; at most {MAX_FILES} can be sent along")
    return named[:MAX_FILES]


def _complete(
    faults: Faults, where: str, named: dict[str, Any], sent: SentFiles | None
) -> dict[str, Any] | None:
    try:
        destination = destination_path(named.get("destination"))
        source = relative_path(named.get("source", destination))
    except BadInput as error:
        advice = ""
        if error.code in {"path_absolute", "path_traversal"}:
            advice = "; files lie beside the experiment file or in folders below it"
        faults.add(where, error.code, f"{error.detail}{advice}")
        return None
    found = named if "sha256" in named else (sent or {}).get(str(named["source"]))
    if found is None:
        found = (sent or {}).get(source)
    if found is None:
        faults.add(where, "file_not_sent", f"{shown(source)} was not sent with the document")
        return None
    sha256, size = found.get("sha256"), found.get("size")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        faults.add(where, "bad_sha256", f"{shown(sha256)} is not a SHA-256 in lower-case hex")
        return None
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MAX_FILE_BYTES:
        detail = f"{shown(source)} must have at most {MAX_FILE_BYTES >> 20} MiB, not {shown(size)}"
        faults.add(where, "file_too_large", f"{detail}; larger data belong in a storage resource")
        return None
    return {"destination": destination, "source": source, "sha256": sha256, "size": size}


def read_rows(
    faults: Faults, path: str, value: Any, tables: Mapping[str, str] | None
) -> dict[str, list[Any]]:
    """The `rows` of a task as columns of equal length; empty where there are none.

    `value` is a path of a CSV table, a list of mappings with the same keys (each may be wrapped as
    `{values: {…}}`), or columns already.
    """
    if value is None:
        return {}
    try:
        if isinstance(value, str):
            columns = _csv_columns(value, tables or {})
        elif isinstance(value, list):
            columns = _listed_columns(value)
        elif isinstance(value, dict) and all(isinstance(column, list) for column in value.values()):
            columns = value
        else:
            detail = f"must be a CSV file or a list of parameter sets, not {shown(value)}"
            raise BadInput(detail, code="bad_rows")
        _check_columns(columns)
    except BadInput as error:
        faults.add(path, error.code, error.detail)
        return {}
    return columns


def _csv_columns(source: str, tables: Mapping[str, str]) -> dict[str, list[Any]]:
    relative = relative_path(source)
    text = tables.get(source, tables.get(relative))
    if text is None:
        raise BadInput(f"{shown(source)} was not sent with the document", code="table_not_sent")
    lines = [line for line in _csv_lines(source, text) if line]
    if not lines:
        raise BadInput(f"{shown(source)} is empty", code="bad_rows")
    header = [name.strip() for name in lines[0]]
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header):
            detail = f"{shown(source)}, row {number}: {len(line)} values for {len(header)} columns"
            raise BadInput(detail, code="bad_rows")
    if len(set(header)) < len(header):
        raise BadInput(f"{shown(source)} has two columns of one name", code="bad_rows")
    return {name: [line[i].strip() for line in lines[1:]] for i, name in enumerate(header)}


def _csv_lines(source: str, text: str) -> list[list[str]]:
    text = text.removeprefix("\ufeff")  # spreadsheets write it, and a header cannot begin with it
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    lines: list[list[str]] = []
    try:
        for line in csv.reader(io.StringIO(text), delimiter=delimiter, strict=True):
            lines.append(line)
            if len(lines) > MAX_ROWS + 1:
                raise BadInput(f"{shown(source)} has more than {MAX_ROWS} rows", code="bad_rows")
    except csv.Error as error:
        detail = f"{shown(source)}, row {len(lines) + 1}: {error}"
        raise BadInput(detail, code="bad_rows") from None
    return lines


def _listed_columns(rows: list[Any]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for number, row in enumerate(rows):
        values = row.get("values") if isinstance(row, dict) and set(row) == {"values"} else row
        if not isinstance(values, dict) or not values:
            detail = f"parameter set {number} must be a mapping of names, not {shown(values)}"
            raise BadInput(detail, code="bad_rows")
        if number == 0:
            columns = {name: [] for name in values}
        if values.keys() != columns.keys():
            odd = sorted(set(values) ^ set(columns))[0]
            detail = f"parameter set {number} differs from the first in {shown(odd)}"
            raise BadInput(detail, code="bad_rows")
        for name, value in values.items():
            columns[name].append(value)
    return columns


def _check_columns(columns: dict[str, list[Any]]) -> None:
    lengths = {len(column) for column in columns.values()}
    if not columns or len(lengths) != 1 or 0 in lengths:
        raise BadInput("must have at least one full parameter set", code="bad_rows")
    if len(columns) > MAX_COLUMNS or max(lengths) > MAX_ROWS:
        detail = f"at most {MAX_COLUMNS} columns and {MAX_ROWS} parameter sets fit"
        raise BadInput(detail, code="bad_rows")
    for name in columns:
        check_name(name)
