"""Command templates: `python3 run.py --rate {{RATE}}`, the short form of a script.

A placeholder becomes an environment reference, quoted as its place in the command needs, so a value
is never part of the text that the shell parses: `; rm -rf /` is an argument, whatever it holds.
"""

from __future__ import annotations

import re

from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.faults import shown
from airavata_scheduler.models.parameters import NAME

MAX_TEMPLATE_CHARS = 65_536

_PLACEHOLDER = re.compile(r"\{\{([^{}]{0,100})\}\}")
# Here the shell opens a new context of quotes, or none, and a reader could not tell which applies.
_NESTED = (("`", "backticks"), ("$(", "$(…)"), ("<<", "<<"), ("$'", "$'…'"))
# Code of another interpreter, of which a value would become a part.
_CODE = re.compile(
    r"\beval\b|\b(?:(?:ba|da|k|z|c|tc|fi)?sh|python[0-9.]{0,6}|perl|ruby|node|Rscript)"
    r"\s+(?:-\w+\s+)*-\w*[ceE]\b"
)


def template_script(template: str) -> tuple[str, list[str]]:
    """The script of a template, and the names it uses in their order.

    Raises BadInput (`bad_template`) where the template is not valid.
    """
    if len(template) > MAX_TEMPLATE_CHARS:
        raise _bad(f"has {len(template)} characters; at most {MAX_TEMPLATE_CHARS} fit")
    names: list[str] = []
    pieces: list[str] = []
    state, end = "", 0
    for placeholder in _PLACEHOLDER.finditer(template):
        literal = template[end : placeholder.start()]
        state, end = _quotes_after(literal, state), placeholder.end()
        name = placeholder[1].strip()
        if not NAME.fullmatch(name):
            raise _bad(f"{shown(placeholder[0])} is not a placeholder; write {{{{NAME}}}}")
        names.append(name)
        pieces += [literal, _reference(name, state)]
    rest = template[end:]
    if _quotes_after(rest, state):
        raise _bad("has a quote that is not closed")
    script = "".join([*pieces, rest])
    _check_literals(_PLACEHOLDER.sub("", template), placeholders=bool(names))
    return f"#!/bin/sh\n{script.rstrip()}\n", list(dict.fromkeys(names))


def _reference(name: str, state: str) -> str:
    """The shell's words for a value: inside double quotes, inside single quotes, or in the open."""
    if state == '"':
        return f"${{{name}}}"
    quoted = f'"${{{name}}}"'
    return f"'{quoted}'" if state == "'" else quoted


def _quotes_after(literal: str, state: str) -> str:
    """Which quote is open after the literal, where `state` was open before it."""
    position = 0
    while position < len(literal):
        char = literal[position]
        if char == "\\" and state != "'":
            position += 1
            if position == len(literal):
                raise _bad("has a backslash before a placeholder or at its end")
        elif char == state:
            state = ""
        elif char in "'\"" and not state:
            state = char
        position += 1
    return state


def _check_literals(literal: str, *, placeholders: bool) -> None:
    if not literal.strip():
        raise _bad("must begin with a program; a value alone is not a command")
    if "{{" in literal or "}}" in literal or "{%" in literal:
        raise _bad("has braces that are not a placeholder; write {{NAME}}")
    for text, name in _NESTED:
        if placeholders and text in literal:
            raise _bad(f"has {name} beside placeholders; write a script, which reads $NAME")
    if placeholders and _CODE.search(literal):
        raise _bad("would make values part of a program's code; write a script, which reads $NAME")


def _bad(detail: str) -> BadInput:
    return BadInput(f"the command {detail}", code="bad_template")
