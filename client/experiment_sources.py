"""An experiment or function file with the local files that it names.

The document is sent as it was written: the server alone says whether it is right. Here we only
find the local files that it names (`files:` at the top level and in tasks, `rows:` of a task) and
send what they hold: files as blobs by their SHA-256, tables of parameter sets (CSV) as text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from airavata_scheduler.client.collection import without_none
from airavata_scheduler.client.errors import BadInputError
from airavata_scheduler.client.json_body import decoded

DOCUMENT_LIMIT_BYTES = 4 * 1024 * 1024
TABLES_LIMIT_BYTES = 4 * 1024 * 1024
MOST_LEVELS = 64  # as the server's


@dataclass(frozen=True, kw_only=True)
class LocalFile:
    """A file of this machine: `size` in bytes, `sha256` in hex."""

    path: Path
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class ExperimentSource:
    """A document and what it names; keys of `files` and `tables` are the paths as written.

    `name` is the file's name where the document has none of its own.
    """

    path: Path
    text: str
    format: str
    name: str | None
    files: Mapping[str, LocalFile]
    tables: Mapping[str, str]

    def attachments(self) -> dict[str, Any]:
        """`files` and `tables` as the API takes them; without those that are empty."""
        files = {
            name: {"sha256": local.sha256, "size": local.size} for name, local in self.files.items()
        }
        return without_none({"files": files or None, "tables": dict(self.tables) or None})

    def document(self) -> dict[str, Any]:
        """The document as the mapping that it is, for those calls that take no text.

        Raises `BadInputError` where it is none.
        """
        try:
            found = decoded(self.text) if self.format == "json" else _plain_yaml(self.text)
        except (yaml.YAMLError, ValueError) as error:
            raise BadInputError(
                f"{self.path} cannot be read: {error}.", hint="Correct the file at that place."
            ) from error
        except RecursionError as error:
            raise BadInputError(
                f"{self.path} is nested too deep to be read.", hint="Nest it less."
            ) from error
        if not isinstance(found, dict):
            raise BadInputError(
                f"{self.path} holds no mapping at its top.",
                hint="Write keys such as command: and parameters: at the margin.",
            )
        return found

    def body(
        self,
        *,
        project: str,
        name: str | None = None,
        compute: Sequence[str] | None = None,
        storage: str | None = None,
    ) -> dict[str, Any]:
        """The body of POST /experiments."""
        options = without_none({"compute": list(compute) if compute else None, "storage": storage})
        return {
            "project": project,
            "document": self.text,
            "format": self.format,
            **without_none({"name": name or self.name}),
            **options,
            **self.attachments(),
        }


def read_source(path: Path) -> ExperimentSource:
    """Read a YAML or JSON document and the local files that it names.

    Raises `BadInputError` for a file that is missing, too large, not UTF-8, or outside the
    document's folder.
    """
    text = _text_of(path, DOCUMENT_LIMIT_BYTES)
    format_ = "json" if path.suffix.lower() == ".json" else "yaml"
    document = _parsed(text, format_)
    files = {
        name: _local_file(_beneath(path, name, "files")) for name in sorted(_files_named(document))
    }
    tables = {
        name: _text_of(_beneath(path, name, "rows"), TABLES_LIMIT_BYTES)
        for name in sorted(_tables_named(document))
    }
    size = sum(len(table.encode()) for table in tables.values())
    if size > TABLES_LIMIT_BYTES:
        raise BadInputError(
            f"The tables that {path} names hold {size / 1e6:.1f} MB together.",
            reason=f"At most {TABLES_LIMIT_BYTES // 1024**2} MiB of parameter sets fit.",
            hint="Use axes (lists and ranges) instead, or split the experiment.",
        )
    named = isinstance(document, Mapping) and bool(document.get("name"))
    return ExperimentSource(
        path=path,
        text=text,
        format=format_,
        name=None if named else path.stem,
        files=files,
        tables=tables,
    )


def _parsed(text: str, format_: str) -> Any:
    """The document with every value as text; None where it is not well-formed.

    A document that cannot be read is sent as it is: the server's sentence about it names the line.
    """
    try:
        # BaseLoader makes nothing but text, lists and mappings: no tags, no numbers.
        return json.loads(text) if format_ == "json" else yaml.load(text, yaml.BaseLoader)  # noqa: S506
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


class _Yaml12Loader(yaml.SafeLoader):
    """YAML 1.2's plain values: `no`, `014` and `1:30:00` are text, as the server reads them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As yaml does; a key that stands twice is an error, not the last one's."""
        seen = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for name in {name for name in seen if seen.count(name) > 1}:
            raise ValueError(f"“{name}” stands twice, in line {node.start_mark.line + 1} or below")
        return super().construct_mapping(node, deep)


_Yaml12Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:bool", r"true|false|True|False|TRUE|FALSE", "tfTF"),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN\0"),
    ("tag:yaml.org,2002:int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?",
        "-+.0123456789",
    ),
):
    _Yaml12Loader.add_implicit_resolver(_tag, re.compile(f"(?:{_pattern})$"), [*_first, ""])


def _plain_yaml(text: str) -> Any:
    """The document as plain data; aliases and deep nesting are refused, as by the server."""
    depth = 0
    for event in yaml.parse(text):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("aliases (*name) are not allowed")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_LEVELS:  # deeper, the parser's time grows with the square of the depth
            raise ValueError(f"it is nested more than {MOST_LEVELS} levels deep")
    return yaml.load(text, _Yaml12Loader)  # noqa: S506 - a SafeLoader


def _sections(document: Any) -> Iterator[Mapping[str, Any]]:
    """The document itself and each of its tasks, as far as they are mappings."""
    if isinstance(document, Mapping):
        yield document
        tasks = document.get("tasks")
        if isinstance(tasks, Mapping):
            yield from (task for task in tasks.values() if isinstance(task, Mapping))


def _files_named(document: Any) -> set[str]:
    """Every path of a `files` entry: "path" or {destination: path}."""
    names: set[str] = set()
    for section in _sections(document):
        files = section.get("files")
        entries = files if isinstance(files, list) else [files]
        for entry in entries:
            if isinstance(entry, str) and entry:
                names.add(entry)
            elif isinstance(entry, Mapping):
                names.update(path for path in entry.values() if isinstance(path, str) and path)
    return names


def _tables_named(document: Any) -> set[str]:
    """Every `rows: table.csv` of a task."""
    rows = [section.get("rows") for section in _sections(document)]
    return {name for name in rows if isinstance(name, str) and name}


def _beneath(document: Path, name: str, key: str) -> Path:
    """The local path of `name`, which must stay in the document's folder."""
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\0" in name or name.startswith("~"):
        raise BadInputError(
            f"{key}: “{_short(name)}” leaves the folder of {document.name}.",
            reason="Only files beside or below the document are sent.",
            hint="Copy the file there, or stage it from a storage resource.",
        )
    path = document.parent / parts
    if not _is_file(path):
        raise BadInputError(
            f"{key}: “{_short(name)}” is not a file beside {document.name}.",
            reason=f"Looked for {_short(str(path))}.",
            hint="Correct the path, or remove the entry.",
        )
    if not path.resolve().is_relative_to(document.parent.resolve()):
        raise BadInputError(
            f"{key}: “{name}” is a link that leaves the folder of {document.name}.",
            hint="Copy the file itself there.",
        )
    return path


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:100]}…{text[-90:]}"


def _is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long; half of a surrogate pair
        return False


def _local_file(path: Path) -> LocalFile:
    digest = hashlib.sha256()
    size = 0
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise BadInputError(f"{path} cannot be read.", reason=error.strerror) from error
    return LocalFile(path=path, sha256=digest.hexdigest(), size=size)


def _text_of(path: Path, limit_bytes: int) -> str:
    """The file as text; a byte-order mark is dropped."""
    try:
        with path.open("rb") as stream:
            content = stream.read(limit_bytes + 1)
    except FileNotFoundError as error:
        raise BadInputError(
            f"There is no file {path}.", hint="Check the name, or the folder that you are in."
        ) from error
    except OSError as error:
        raise BadInputError(f"{path} cannot be read.", reason=error.strerror) from error
    if len(content) > limit_bytes:
        raise BadInputError(f"{path} is larger than {limit_bytes // 1024**2} MiB.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(
            f"{path} is not UTF-8 text.", reason=f"Byte {error.start} is not valid."
        ) from error
