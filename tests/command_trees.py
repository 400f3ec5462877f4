"""The commands that a user can type: click's trees of `airavata` and `airavata-scheduler`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import click

from airavata_scheduler.client.main import airavata
from airavata_scheduler.commands.main import scheduler

PROGRAMS: dict[str, click.Group] = {"airavata": airavata, "airavata-scheduler": scheduler}
# `airavata` or `airavata-scheduler`, then words up to what ends a command in prose or in a shell.
_TYPED = re.compile(
    r"(?<![\w/.-])(?:[\w./]*/bin/)?(airavata(?:-scheduler)?) +([a-z-][^`\n<>|;&'\"]*)"
)
_WORD = re.compile(r"[a-z][a-z-]*")
_OPTION = re.compile(r"--[a-z][a-z-]*")


@dataclass(frozen=True, kw_only=True)
class Typed:
    """One command, such as `airavata experiment run`, with the options that it alone has."""

    words: tuple[str, ...]
    options: tuple[str, ...]
    silent: tuple[str, ...]  # what has no sentence in its --help: the command or an option


def commands(program: str) -> Iterator[Typed]:
    """Every command of a program, groups left out."""
    yield from _below(PROGRAMS[program], (program,), _options(PROGRAMS[program]))


def _below(
    command: click.Command, words: tuple[str, ...], shared: frozenset[str]
) -> Iterator[Typed]:
    if not isinstance(command, click.Group):
        silent = [] if command.help else [" ".join(words)]
        silent += [
            parameter.opts[0]
            for parameter in command.params
            if isinstance(parameter, click.Option) and not parameter.help
        ]
        own = _options(command) - shared
        yield Typed(words=words, options=tuple(sorted(own)), silent=tuple(silent))
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from _below(found, (*words, name), shared)


def _options(command: click.Command) -> frozenset[str]:
    return frozenset(
        name
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    ) | {"--help"}


def untrue_commands(text: str) -> list[str]:
    """The commands in a text that nobody can type: a word or an option is unknown."""
    return [
        match[0].strip()
        for match in _TYPED.finditer(text)
        if not _can_be_typed(PROGRAMS[match[1]], match[2].split())
    ]


def _can_be_typed(command: click.Command, words: list[str]) -> bool:
    """Follow the words down the tree; behind the command only options must be known."""
    known = _options(command)
    for position, word in enumerate(words):
        if not isinstance(command, click.Group):
            return _options_are_known(command, known, words[position:])
        if not _WORD.fullmatch(word.rstrip(".,:;)")):
            return _options_are_known(command, known, words[position:])
        found = command.get_command(click.Context(command), word.rstrip(".,:;)"))
        if found is None:
            return False
        command, known = found, known | _options(found)
    return True


def _options_are_known(command: click.Command, known: frozenset[str], words: list[str]) -> bool:
    if command.context_settings.get("ignore_unknown_options"):
        return True
    asked = {option for word in words for option in _OPTION.findall(word)}
    return asked <= known | _everything_below(command)


def _everything_below(command: click.Command) -> frozenset[str]:
    if not isinstance(command, click.Group):
        return frozenset()
    context = click.Context(command)
    return frozenset().union(
        *(
            _options(found) | _everything_below(found)
            for name in command.list_commands(context)
            if (found := command.get_command(context, name)) is not None
        )
    )
