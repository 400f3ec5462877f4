"""One relationship of SpiceDB, and one SELECT that says which of a kind must exist."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

SYSTEM: Final = ("system", "main")
EVERYBODY: Final = ("user", "*")
GROUP_SUBJECT: Final = "membership"  # a group as a subject means those who are in it

_TEXT = re.compile(r"(\w+):([\w*/-]+)#(\w+)@(\w+):([\w*/-]+)(?:#(\w+))?")


@dataclass(frozen=True, kw_only=True, order=True)
class Relationship:
    """One relationship: `project:P#admin@group:G#membership`."""

    kind: str
    id: str
    relation: str
    subject_kind: str
    subject_id: str
    subject_relation: str = ""

    def __str__(self) -> str:
        """As SpiceDB's tools write it."""
        tail = f"#{self.subject_relation}" if self.subject_relation else ""
        return f"{self.kind}:{self.id}#{self.relation}@{self.subject_kind}:{self.subject_id}{tail}"

    @classmethod
    def read(cls, text: str) -> Relationship:
        """The relationship that `text` names. Raises ValueError."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"not a relationship: {text!r}")
        kind, object_id, relation, subject_kind, subject_id, tail = match.groups()
        return cls(
            kind=kind,
            id=object_id,
            relation=relation,
            subject_kind=subject_kind,
            subject_id=subject_id,
            subject_relation=tail or "",
        )


@dataclass(frozen=True, kw_only=True)
class Projection:
    """One relation of one kind, as a SELECT.

    `object_column` and `subject_column` are columns of `source`; where one is None, `only_object`
    or `only_subject` stands there in every row.
    """

    kind: str
    relation: str
    subject_kind: str
    subject_relation: str = ""
    source: str
    object_column: str | None
    subject_column: str | None
    where: str = "1 = 1"
    only_object: str = SYSTEM[1]
    only_subject: str = SYSTEM[1]

    @property
    def shape(self) -> tuple[str, str, str, str, bool]:
        """By which a relationship finds its projection."""
        wild = self.subject_column is None and self.only_subject == EVERYBODY[1]
        return (self.kind, self.relation, self.subject_kind, self.subject_relation, wild)

    def made(self, object_id: str | None, subject_id: str | None) -> Relationship:
        """The relationship of one row."""
        return Relationship(
            kind=self.kind,
            id=object_id if object_id is not None else self.only_object,
            relation=self.relation,
            subject_kind=self.subject_kind,
            subject_id=subject_id if subject_id is not None else self.only_subject,
            subject_relation=self.subject_relation,
        )
