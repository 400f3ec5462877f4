"""What the tables are made of: the base class, our own column types, indexes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, overload

import peewee

from airavata_scheduler.models.database import database

if TYPE_CHECKING:
    from typing_extensions import TypeVar


@dataclass(frozen=True, kw_only=True)
class Index:
    """One index of a table.

    `columns` may end in ` DESC`. `where` makes it partial in PostgreSQL and SQLite; MySQL has no
    partial indexes and gets `mysql_columns` (or `columns`) instead.
    """

    name: str
    columns: Sequence[str]
    unique: bool = False
    where: str = ""
    mysql_columns: Sequence[str] = ()


def references(**tables: str) -> Mapping[str, str]:
    """Foreign keys: the name of a column, and the table whose id it holds."""
    return MappingProxyType(tables)


class Table(peewee.Model):
    """The base of all tables: `REFERENCES` are kept by the database, `INDEXES` beside the key.

    Columns that end in `_id` hold ids as text; no attribute follows them by itself, so that no loop
    sends a query per row.
    """

    INDEXES: ClassVar[Sequence[Index]] = ()
    REFERENCES: ClassVar[Mapping[str, str]] = MappingProxyType({})

    class Meta:
        database = database
        legacy_table_names = False


class _IdField(peewee.Field):
    """A UUID: native in PostgreSQL, text of 36 characters elsewhere and always in Python."""

    field_type = "ID"


if TYPE_CHECKING:
    _V = TypeVar("_V", default=str)

    class IdField(peewee.Field[_V]):
        """As the type checker sees it: `str`, or `str | None` where the column may be NULL."""

        @overload
        def __new__(cls, *, null: Literal[True], **kwargs: Any) -> IdField[str | None]: ...
        @overload
        def __new__(cls, *, null: Literal[False] = ..., **kwargs: Any) -> IdField[str]: ...
        def __new__(cls, **kwargs: Any) -> Any: ...

else:
    IdField = _IdField


class JSONField(peewee.Field):
    """A JSON value, kept as canonical text: keys sorted, no blanks, ASCII."""

    field_type = "TEXT"

    def db_value(self, value: Any) -> str | None:
        """`value` as text; None stays NULL."""
        return None if value is None else canonical_json(value)

    def python_value(self, value: Any) -> Any:
        """The value that the text says."""
        return None if value is None else json.loads(value)


class WitnessedJSONField(JSONField):
    """JSON of which it must show that somebody changed it behind our back: then it is its text."""

    def python_value(self, value: Any) -> Any:
        """The value that the text says, or the text where we would have written another."""
        return None if value is None else ours_or_text(value)


def ours_or_text(text: str) -> Any:
    """The value of which `text` is the canonical JSON; `text` itself where it is none.

    So two texts are never the same value: also not where a key stands twice, or a blank was added.
    """
    try:
        found = json.loads(text)
        ours = canonical_json(found) == text
    except (ValueError, RecursionError):  # no JSON, a NaN, or nested as no program of ours nests
        return text
    return found if ours else text


def canonical_json(value: Any) -> str:
    """`value` as the one text that stands for it; raw SQL on JSON columns passes this.

    ASCII, so that neither a NUL nor half a surrogate pair can make a database refuse it. Raises
    ValueError for NaN and infinities, which JSON cannot say.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
