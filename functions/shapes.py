"""The base classes of what comes in and goes out, and how values look in JSON."""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from airavata_scheduler.functions import problems
from airavata_scheduler.models.ids import is_id

_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?", re.ASCII)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, str_max_length=1_000_000)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        problems.remember_model(cls)

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As pydantic's, computed once: flask-openapi3 asks for it at every request."""
        return _schema(cls, args, tuple(sorted(kwargs.items())))


@functools.cache
def _schema(
    model: type[BaseModel], args: tuple[Any, ...], kwargs: tuple[tuple[str, Any], ...]
) -> dict[str, Any]:
    plain: Any = BaseModel.model_json_schema.__func__  # type: ignore[attr-defined]
    found: dict[str, Any] = plain(model, *args, **dict(kwargs))
    return found


class Body(_Strict):
    """A JSON body: unknown fields are errors, and `true` or `"1"` is no integer."""


class Nothing(Body):
    """A body without members; it may also be absent."""


class Query(_Strict):
    """Query parameters: unknown ones are errors; values come as text and are converted."""

    model_config = ConfigDict(extra="forbid", strict=False)


class Path(BaseModel):
    """Path variables, for views that need the text itself; most take `access.target()` instead."""


class Answer(BaseModel):
    """What a view answers; documentation only, since views build their dicts themselves."""


def _no_id(name: str) -> str:
    if is_id(name):
        raise ValueError("a name must not look like an id")
    return name


# ASCII only, so that no two names look alike; no blank or slash, so that they fit URLs and
# commands.
Name = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", description="Letters, digits and . _ -"),
    AfterValidator(_no_id),
]
# One case only: Alice and alice would be taken for each other.
UserName = Annotated[
    str,
    Field(pattern=r"^[a-z][a-z0-9._-]{0,62}$", description="Lower-case letters, digits and . _ -"),
    AfterValidator(_no_id),
]
# Text of people: line breaks and tabs, but no other control character.
Text = Annotated[str, Field(max_length=4000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$")]
Line = Annotated[str, Field(max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$")]


def _written_out(value: object) -> object:
    """Left to itself, pydantic takes a bare number for a unix time."""
    if isinstance(value, str) and not _MOMENT.fullmatch(value):
        raise ValueError("must be a time as RFC 3339 has it, such as 2026-11-26T12:00:00Z")
    return value


Moment = Annotated[datetime, BeforeValidator(_written_out)]


def rfc3339(milliseconds: int | None) -> str | None:
    """A database time (milliseconds since the epoch) as RFC 3339 text in UTC, or None."""
    if milliseconds is None:
        return None
    moment = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"
