"""``parallel-core completion``: a script that has a shell complete commands and options.

::

    parsers of argparse ──▶ commands_of ──▶ Command, Option ──▶ for_bash, for_zsh, for_fish

Commands, options, choices and help texts come from the parsers themselves, so a new option needs no
line here.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import NamedTuple

from parallel_core.cli.arguments import CompletionOptions, ExitCode, make_parser


class Option(NamedTuple):
    """An option of a command."""

    names: tuple[str, ...]
    help: str
    choices: tuple[str, ...]
    value: str  #: what its value is called; empty if it takes none


class Command(NamedTuple):
    """A command, with what may follow it."""

    name: str
    help: str
    options: tuple[Option, ...]
    choices: tuple[str, ...]  #: of its first argument, if it is one of a few words


def run(options: CompletionOptions) -> int:
    """Run ``parallel-core completion`` and return its exit code."""
    parser, commands = make_parser()
    write = {"bash": for_bash, "zsh": for_zsh, "fish": for_fish}[options.shell]
    print(write(commands_of(commands), _options_of(parser)))
    return ExitCode.DONE


def commands_of(parsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> list[Command]:
    """Return the commands that `parsers` understands."""
    helps = {action.dest: action.help or "" for action in parsers._get_subactions()}
    return [
        Command(name, helps.get(name, ""), _options_of(parser), _first_choices(parser))
        for name, parser in parsers.choices.items()
    ]


def _options_of(parser: argparse.ArgumentParser) -> tuple[Option, ...]:
    return tuple(
        Option(
            tuple(action.option_strings),
            action.help or "",
            _words(action.choices),
            "" if action.nargs == 0 else str(action.metavar or action.dest).lower(),
        )
        for action in parser._actions
        if action.option_strings
    )


def _first_choices(parser: argparse.ArgumentParser) -> tuple[str, ...]:
    positional = [action for action in parser._actions if not action.option_strings]
    return _words(positional[0].choices) if positional else ()


def _words(choices: Iterable[object] | None) -> tuple[str, ...]:
    return () if choices is None else tuple(map(str, choices))


def _names(options: Iterable[Option]) -> str:
    return " ".join(name for option in options for name in option.names)


def for_bash(commands: list[Command], common: tuple[Option, ...]) -> str:
    """Return the script for bash."""
    values, words = [], []
    for command in commands:
        for option in command.options:
            if option.value:
                pattern = "|".join(f"{command.name}:{name}" for name in option.names)
                values.append(f"        {pattern}) words='{' '.join(option.choices)}' ;;")
        following = " ".join([_names(command.options), *command.choices])
        words.append(f"        {command.name}:*) words='{following}' ;;")
    first = " ".join([_names(common), *(command.name for command in commands)])
    return "\n".join(
        [
            "_parallel_core() {",
            "    local words current=${COMP_WORDS[COMP_CWORD]}",
            '    case "${COMP_WORDS[1]}:${COMP_WORDS[COMP_CWORD-1]}" in',
            *values,
            *words,
            "    esac",
            f"    if ((COMP_CWORD == 1)); then words='{first}'; fi",
            '    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")',
            "}",
            "complete -o default -F _parallel_core parallel-core",
        ]
    )


def for_zsh(commands: list[Command], common: tuple[Option, ...]) -> str:
    """Return the script for zsh."""
    cases = []
    for command in commands:
        following = f"({' '.join(command.choices)})" if command.choices else "_files"
        lines = [*map(_zsh_option, command.options), f"'*: :{following}'"]
        cases.append(
            f"        {command.name})\n            _arguments "
            + " \\\n                ".join(lines)
        )
        cases.append("            ;;")
    listed = [_quoted(f"{command.name}:{command.help}") for command in commands]
    return "\n".join(
        [
            "#compdef parallel-core",
            "_parallel_core() {",
            f"    local -a commands=({' '.join(listed)})",
            "    if ((CURRENT == 2)); then",
            "        _describe command commands",
            f"        compadd -- {_names(common)}",
            "        return",
            "    fi",
            "    shift words",
            "    ((CURRENT -= 1))",
            "    case $words[1] in",
            *cases,
            "    esac",
            "}",
            "compdef _parallel_core parallel-core",
        ]
    )


def _zsh_option(option: Option) -> str:
    """Return an option as `_arguments` of zsh takes it."""
    text = option.help
    for special in "\\[]:":
        text = text.replace(special, "\\" + special)
    value = ""
    if option.value:
        value = f":{option.value}:" + (
            f"({' '.join(option.choices)})" if option.choices else "_files"
        )
    if len(option.names) == 1:
        return _quoted(f"{option.names[0]}[{text}]{value}")
    return f"'({' '.join(option.names)})'{{{','.join(option.names)}}}" + _quoted(f"[{text}]{value}")


def for_fish(commands: list[Command], common: tuple[Option, ...]) -> str:
    """Return the script for fish."""
    lines = ["function __parallel_core_in", "    contains -- $argv[1] (commandline -opc)[2]", "end"]
    start = "complete -c parallel-core"
    for option in common:
        lines.append(f"{start} -n __fish_use_subcommand {_fish_option(option)}")
    for command in commands:
        named = f"-f -a {command.name} -d {_quoted(command.help)}"
        lines.append(f"{start} -n __fish_use_subcommand {named}")
        when = f"{start} -n '__parallel_core_in {command.name}'"
        if command.choices:
            lines.append(f"{when} -f -a '{' '.join(command.choices)}'")
        lines += [f"{when} {_fish_option(option)}" for option in command.options]
    return "\n".join(lines)


def _fish_option(option: Option) -> str:
    parts = [
        f"-{'l' if name.startswith('--') else 's'} {name.lstrip('-')}" for name in option.names
    ]
    if option.choices:
        parts.append(f"-x -a '{' '.join(option.choices)}'")
    elif option.value:
        parts.append("-r")
    return " ".join([*parts, f"-d {_quoted(option.help)}"])


def _quoted(text: str) -> str:
    r"""Return `text` between single quotes; ``'\''`` is one within them, in all three shells."""
    return "'" + text.replace("'", "'\\''") + "'"
