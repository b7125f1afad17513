"""``spanproof completion``: scripts with which a shell completes the command line.

A script contains all words, because starting Python at every key press is too slow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from shlex import quote
from typing import Annotated, Final

import typer

from spanproof.api.cli.command_app import make_command_app
from spanproof.api.cli.command_tree import CommandNode, CommandParameter, read_commands
from spanproof.api.cli.exits import exit_with_error

PROGRAM: Final = "spanproof"

app = make_command_app()


@app.command(
    short_help="Print the completion script of a shell.",
    epilog="Example: spanproof completion bash > ~/.local/share/bash-completion/completions/spanproof",
)
def completion(
    context: typer.Context,
    shell: Annotated[str, typer.Argument(metavar="bash|fish|zsh", help="The shell to write a script for.")],
) -> None:
    """Print the script with which a shell completes commands and options."""
    if shell not in SHELLS:
        exit_with_error(f"a shell is one of {', '.join(SHELLS)}, not {shell!r}")
    typer.echo(SHELLS[shell](read_commands(context.find_root().command)), nl=False)


def write_bash(root: CommandNode) -> str:
    """Return the script for bash: which word may follow which, as cases of one function."""
    known, values, commands = [], [], []
    for command in root.walk():
        known += [quote(command.path)] if command.words else []
        options = " ".join(spelling for option in command.options for spelling in option.spellings)
        arguments = " ".join([each.words[-1] for each in command.commands] or _list_choices(command.argument))
        files = "yes" if command.argument and command.argument.takes_path else ""
        assignments = f"options={quote(options)} arguments={quote(arguments)} files={files}"
        commands.append(f"        {quote(command.path)}) {assignments} ;;")
        for option in command.options if command.words else ():
            patterns = " | ".join(quote(f"{command.path} {spelling}") for spelling in option.spellings)
            if option.takes_value:
                assignments = f"arguments={quote(' '.join(option.choices))} files={'yes' if option.takes_path else ''}"
                values.append(f"        {patterns}) options= {assignments} ;;")
    return f"""\
# bash completion of {PROGRAM}
_{PROGRAM}() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
    local command='' options='' arguments='' files='' i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "${{command:+$command }}${{COMP_WORDS[i]}}" in
            {" | ".join(known)}) command="${{command:+$command }}${{COMP_WORDS[i]}}" ;;
        esac
    done
    case "$command" in
{chr(10).join(commands)}
    esac
    case "$command $previous" in
{chr(10).join(values)}
    esac
    if [[ $current == -* ]]; then arguments=$options; fi
    COMPREPLY=($(compgen -W "$arguments" -- "$current"))
    if [[ -n $files && $current != -* ]]; then compopt -o default; fi
}}
complete -F _{PROGRAM} {PROGRAM}
"""


def write_zsh(root: CommandNode) -> str:
    """Return the script for zsh: a function for each command, that of a group choosing among those below it."""
    functions = [
        _write_zsh_group(command) if command.commands else _write_zsh_command(command) for command in root.walk()
    ]
    return "\n".join([f"#compdef {PROGRAM}", "", *functions, f"compdef _{PROGRAM} {PROGRAM}", ""])


def _name_zsh_function(command: CommandNode) -> str:
    return "_".join(["", PROGRAM, *command.words])


def _write_zsh_group(command: CommandNode) -> str:
    offered = " ".join(quote(f"{each.words[-1]}:{each.help}") for each in command.commands)
    return f"""\
{_name_zsh_function(command)}() {{
    local -a commands=({offered})
    if ((CURRENT == 2)); then
        _describe -t commands command commands
        _arguments {" ".join(_write_zsh_option(option) for option in command.options)}
        return
    fi
    local function={_name_zsh_function(command)}_${{words[2]}}
    shift words
    ((CURRENT--))
    if (($+functions[$function])); then $function; fi
}}
"""


def _write_zsh_command(command: CommandNode) -> str:
    parts = [_write_zsh_option(option) for option in command.options]
    if command.argument:
        parts.append(quote(f"*:{command.argument.metavar}:{_write_zsh_action(command.argument)}"))
    lines = " \\\n        ".join(parts)
    return f"{_name_zsh_function(command)}() {{\n    _arguments \\\n        {lines}\n}}\n"


def _write_zsh_option(option: CommandParameter) -> str:
    several = len(option.spellings) > 1
    begin = "*" if option.is_repeatable else f"({' '.join(option.spellings)})" if several else ""
    spelled = f"{{{','.join(option.spellings)}}}" if several else option.spellings[0]
    help_ = re.sub(r"([\[\]:\\])", r"\\\1", option.help)
    value = (
        f":{(option.metavar or 'VALUE').replace(':', '-')}:{_write_zsh_action(option)}" if option.takes_value else ""
    )
    return f"{quote(begin) if begin else ''}{spelled}{quote(f'[{help_}]{value}')}"


def _write_zsh_action(parameter: CommandParameter) -> str:
    return f"({' '.join(parameter.choices)})" if parameter.choices else "_files" if parameter.takes_path else " "


def write_fish(root: CommandNode) -> str:
    """Return the script for fish: a line for each word, with the condition under which it may stand."""
    lines = [f"complete -c {PROGRAM} -f"]
    for command in root.walk():
        condition = _write_fish_condition(command)
        lines += [f"{condition} -a {each.words[-1]} -d {_quote_fish(each.help)}" for each in command.commands]
        lines += [_write_fish_option(condition, option) for option in command.options]
        if command.argument and command.argument.takes_path:
            lines.append(f"{condition} -F")
        elif command.argument and command.argument.choices:
            lines.append(f"{condition} -a {_quote_fish(' '.join(command.argument.choices))}")
    return "\n".join([*lines, ""])


def _write_fish_condition(command: CommandNode) -> str:
    seen = [f"__fish_seen_subcommand_from {word}" for word in command.words]
    below = " ".join(each.words[-1] for each in command.commands)
    unseen = [f"not __fish_seen_subcommand_from {below}"] if below else []
    return f"complete -c {PROGRAM} -n {_quote_fish('; and '.join(seen + unseen))}"


def _write_fish_option(condition: str, option: CommandParameter) -> str:
    spelled = " ".join(f"-l {each[2:]}" if each.startswith("--") else f"-s {each[1:]}" for each in option.spellings)
    value = ""
    if option.takes_value:
        value = (
            " -r -F"
            if option.takes_path
            else f" -x -a {_quote_fish(' '.join(option.choices))}"
            if option.choices
            else " -x"
        )
    return f"{condition} {spelled}{value} -d {_quote_fish(option.help)}"


def _quote_fish(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _list_choices(argument: CommandParameter | None) -> tuple[str, ...]:
    return argument.choices if argument else ()


SHELLS: Final[Mapping[str, Callable[[CommandNode], str]]] = {"bash": write_bash, "fish": write_fish, "zsh": write_zsh}
