"""Parameters: declared by name and type, checked, and turned into environment text.

A parameter reaches a script as an environment variable of its name and never by text substitution.
Types: `int` (64 bits), `float` (finite), `bool`, `string`, `path` (relative to the task's
directory) and `choice`. A value that would have to be guessed at (`014`, `yes`, `1.10` for a
string) is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.faults import Faults, Section, shown, shown_key, suggestion
from airavata_scheduler.models.paths import relative_path

Value = bool | int | float | str

MIN_INT = -(2**63)
MAX_INT = 2**63 - 1
MAX_EXACT_FLOAT = 2**53
# Linux takes at most 128 KiB for one variable, its name included.
MAX_TEXT_BYTES = 65_536
MAX_CHOICES = 1000
MAX_PARAMETERS = 200

TYPES = ("int", "float", "bool", "string", "path", "choice")
ALIASES = {
    "integer": "int",
    "number": "float",
    "double": "float",
    "boolean": "bool",
    "str": "string",
    "text": "string",
    "enum": "choice",
    "file": "path",
}
KEYS = ("type", "default", "minimum", "maximum", "choices", "description")

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
# No leading zeros: `014` is 12 to some programs, 14 to others. ASCII digits only.
INTEGER_TEXT = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,19})")
FLOAT_TEXT = re.compile(
    r"[+-]?(?:\.[0-9]{1,40}|[0-9]{1,40}(?:\.[0-9]{0,40})?)(?:[eE][+-]?[0-9]{1,4})?"
)

# What the linker, a shell, an interpreter or a batch system obeys must not come from a value.
_RESERVED = re.compile(
    r"""
    (?:AIRAVATA_|BASH_FUNC_|DYLD_|GLIBC_|LC_|LD_|PYTHON|SBATCH_|SLURM|SRUN_|KUBERNETES_|PMIX?_).*
    | BASHOPTS | BASH_ENV | CDPATH | ENV | GCONV_PATH | GLOBIGNORE | HOME | IFS | LANG | LOGNAME
    | MALLOC_CHECK_ | NLSPATH | NODE_OPTIONS | OLDPWD | PATH | PERL5LIB | PERL5OPT
    | PROMPT_COMMAND | PS[124] | PWD | RUBYLIB | RUBYOPT | SHELL | SHELLOPTS | SHLVL | TMPDIR | USER
    """,
    re.VERBOSE,
)


def check_name(name: str) -> None:
    """Raise BadInput where `name` cannot be an environment variable that users own."""
    if not NAME.fullmatch(name):
        detail = f"{shown(name)} is not a name: letters, digits and _, at most 64, no digit first"
        raise BadInput(detail, code="bad_name")
    if _RESERVED.fullmatch(name):
        detail = f"{name} is reserved for the system; choose another, or export it in the script"
        raise BadInput(detail, code="reserved_name")


def environment_text(value: Value) -> str:
    """What a script sees: decimal integers, the shortest float that reads back, true or false."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One declared parameter; `default` is None where a task must give a value."""

    name: str
    type: str
    default: Value | None = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Value, ...] = ()
    description: str = ""

    @classmethod
    def from_json(cls, name: str, stored: dict[str, Any]) -> Parameter:
        """A parameter from its stored form."""
        return cls(name=name, **{**stored, "choices": tuple(stored.get("choices", ()))})

    def to_json(self) -> dict[str, Any]:
        """The stored form: only what was said."""
        stored: dict[str, Any] = {"type": self.type}
        for key in ("default", "minimum", "maximum"):
            if getattr(self, key) is not None:
                stored[key] = getattr(self, key)
        if self.choices:
            stored["choices"] = list(self.choices)
        if self.description:
            stored["description"] = self.description
        return stored

    def coerce(self, value: object) -> Value:
        """The value in this parameter's type.

        Raises BadInput with a sentence, and a code: `not_an_integer`, `not_a_number`, `not_a_bool`,
        `not_a_text`, `out_of_range`, `not_a_choice`, `too_long`, `path_…`.
        """
        if value is None or isinstance(value, dict | list):
            raise BadInput(f"must be one {self.type}, not {shown(value)}", code="not_a_value")
        typed = _READERS[self.type](value)
        if isinstance(typed, int | float):
            self._check_bounds(typed)
        if not self.choices:
            return typed
        # By text, since `true` equals 1 in Python, and a CSV file has texts only.
        by_text = {environment_text(choice): choice for choice in self.choices}
        text = environment_text(typed)
        if text not in by_text:
            detail = f"{shown(text)} is not a choice{suggestion(text, by_text)}"
            raise BadInput(detail, code="not_a_choice")
        return by_text[text]

    def _check_bounds(self, value: float) -> None:
        if self.minimum is not None and value < self.minimum:
            detail = f"{shown(value)} is below the minimum {self.minimum}"
            raise BadInput(detail, code="out_of_range")
        if self.maximum is not None and value > self.maximum:
            detail = f"{shown(value)} is above the maximum {self.maximum}"
            raise BadInput(detail, code="out_of_range")


def _read_int(value: object) -> Value:
    number = value
    if isinstance(number, str) and INTEGER_TEXT.fullmatch(number):
        number = int(number)
    if isinstance(number, float) and number.is_integer() and abs(number) <= MAX_EXACT_FLOAT:
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int):
        raise BadInput(f"must be a whole number, not {shown(value)}", code="not_an_integer")
    if not MIN_INT <= number <= MAX_INT:
        detail = f"{shown(value)} does not fit in 64 bits"
        raise BadInput(detail, code="out_of_range")
    return number


def _read_float(value: object) -> Value:
    if isinstance(value, str) and FLOAT_TEXT.fullmatch(value):
        number = float(value)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(f"must be a number, not {shown(value)}", code="not_a_number")
    elif isinstance(value, int) and not MIN_INT <= value <= MAX_INT:
        raise BadInput(f"{shown(value)} is too large; write it as 1e30", code="out_of_range")
    else:
        number = float(value)
    if not math.isfinite(number):
        raise BadInput(f"{shown(value)} is not a finite number", code="not_a_number")
    return number


def _read_bool(value: object) -> Value:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    raise BadInput(f"must be true or false, not {shown(value)}", code="not_a_bool")


def _read_string(value: object) -> Value:
    if isinstance(value, int) and not isinstance(value, bool) and MIN_INT <= value <= MAX_INT:
        return str(value)  # whole numbers have one spelling here; 1.10 or true would lose theirs
    if not isinstance(value, str):
        detail = f"must be a text, not {shown(value)}; put it in quotes"
        raise BadInput(detail, code="not_a_text")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise BadInput("has half a surrogate pair", code="lone_surrogate") from None
    if size > MAX_TEXT_BYTES:
        raise BadInput(f"has {size} bytes; at most {MAX_TEXT_BYTES} fit", code="too_long")
    if "\0" in value:
        raise BadInput("has a NUL character", code="nul_character")
    return value


def _read_path(value: object) -> Value:
    relative_path(value.rstrip("/") or value if isinstance(value, str) else value)
    return str(value)  # as given: scripts may compare it


_READERS: dict[str, Callable[[object], Value]] = {
    "int": _read_int,
    "float": _read_float,
    "bool": _read_bool,
    "string": _read_string,
    "path": _read_path,
    "choice": lambda value: value if isinstance(value, bool | int | float) else _read_string(value),
}


def inferred(name: str, value: object) -> Parameter:
    """A parameter for a value whose type nobody declared: the type that the value has."""
    for kind, python_type in (("bool", bool), ("int", int), ("float", float)):
        if isinstance(value, python_type):
            return Parameter(name=name, type=kind)
    return Parameter(name=name, type="string")


def read_parameters(faults: Faults, path: str, value: object) -> dict[str, Parameter]:
    """The `parameters` section: NAME → {type, default, minimum, maximum, choices, description}."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        faults.add(path, "not_a_mapping", f"must be a mapping of names, not {shown(value)}")
        return {}
    if len(value) > MAX_PARAMETERS:
        faults.add(path, "too_many", f"{len(value)} parameters; at most {MAX_PARAMETERS} fit")
        return {}
    parameters = {}
    for name, declared in value.items():
        where = f"{path}.{shown_key(name)}"
        try:
            check_name(name)
        except BadInput as error:
            faults.add(where, error.code, error.detail)
            continue
        entry = {"type": declared} if isinstance(declared, str) else declared
        parameters[name] = _read_parameter(Section(faults, where, entry, KEYS), name)
    return parameters


def _read_parameter(section: Section, name: str) -> Parameter:
    kind = _read_type(section)
    bare = Parameter(name=name, type=kind)
    choices = []
    for position, choice in enumerate(section.items("choices", maximum=MAX_CHOICES)):
        coerced = _coerced(section, f"choices[{position}]", bare, choice)
        if coerced is not None:
            choices.append(coerced)
    if kind == "choice" and not choices:
        section.fault("choices", "missing", "a choice needs its `choices`, as in [fast, exact]")
    bounds: dict[str, Any] = {}
    for key in ("minimum", "maximum"):
        if section.has(key) and kind in {"int", "float"}:
            bounds[key] = _coerced(section, key, bare, section.value[key])
        elif section.has(key):
            section.fault(key, "not_allowed", f"a {kind} has no {key}")
    lowest, highest = bounds.get("minimum"), bounds.get("maximum")
    if lowest is not None and highest is not None and lowest > highest:
        section.fault("minimum", "out_of_range", "is above the maximum")
    description = section.text("description", max_chars=2000)
    whole = Parameter(
        name=name, type=kind, choices=tuple(choices), description=description, **bounds
    )
    if not section.has("default"):
        return whole
    default = _coerced(section, "default", whole, section.value["default"])
    return Parameter(**{**vars(whole), "default": default})


def _read_type(section: Section) -> str:
    named = section.text("type")
    if not named and section.has("choices"):
        return "choice"
    if not named and section.has("default"):
        return inferred("", section.value["default"]).type
    kind = ALIASES.get(named, named)
    if kind in TYPES:
        return kind
    if named:
        detail = f"unknown type {shown(named)}{suggestion(named, TYPES)}"
        section.fault("type", "unknown_type", detail)
    elif not section.has("type"):
        section.fault("type", "missing", f"must be one of {', '.join(TYPES)}")
    return "string"


def _coerced(section: Section, key: str, parameter: Parameter, value: object) -> Value | None:
    try:
        return parameter.coerce(value)
    except BadInput as error:
        section.fault(key, error.code, error.detail)
        return None
