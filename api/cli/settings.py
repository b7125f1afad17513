"""Settings from ``spanproof.toml`` and from the environment, read and validated by pydantic-settings.

Importing pydantic-settings takes about 0.2 s, so this module is imported only if `has_settings`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field, ValidationError, create_model
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from spanproof.api.cli.setting_definitions import (
    DEFAULT,
    Option,
    Setting,
    SettingsError,
    find_settings_file,
    list_options,
    list_variables,
)
from spanproof.query_lang.syntax.diagnostics import suggest_names

if TYPE_CHECKING:
    import typer

Table = Mapping[str, Any]


def apply_settings(context: typer.Context) -> None:
    """Make the settings the defaults of the command that `context` is about to run. Raises SettingsError."""
    path = find_settings_file(Path.cwd())
    default_map: dict[str, Any] = {}
    for setting in read_settings(context.command, path, os.environ):
        if not setting.is_default:
            options = default_map
            for word in setting.option.command:
                options = options.setdefault(word, {})
            options[setting.option.parameter] = setting.value
    context.default_map = default_map


def read_settings(root: Any, path: Path | None, environment: Mapping[str, str]) -> list[Setting]:
    """Return the settings of all options of the commands below `root`. Raises SettingsError."""
    options = list(list_options(root))
    table = {} if path is None else read_table(path)
    check_keys(table, options, path)
    check_variables(list_variables(environment), options)
    return resolve(options, table, path, environment)


def read_table(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file. Raises SettingsError, with the position of a syntax error."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from None


def check_keys(table: Table, options: Iterable[Option], path: Path | None) -> None:
    """Raise SettingsError for the first key of the file that is not an option, or not a command."""
    known = {option.path for option in options} | {option.shared_key for option in options if option.shared_key}
    commands = {".".join(option.command[:depth]) for option in options for depth in range(1, len(option.command) + 1)}

    def check(table: Table, prefix: str) -> None:
        for key, value in table.items():
            location = f"{prefix}{key}"
            if isinstance(value, Mapping) and location in commands:
                check(value, f"{location}.")
            elif location in commands:
                raise SettingsError(f"{path}: `{location}` is a command; its options are a table: [{location}]")
            elif location not in known:
                hint = suggest_names(location, [*known, *commands]) or "`spanproof config` lists the settings"
                raise SettingsError(f"{path}: `{location}` is not a setting; {hint}")

    check(table, "")


def check_variables(names: Iterable[str], options: Iterable[Option]) -> None:
    """Raise SettingsError for the first variable that does not belong to an option."""
    known = {variable for option in options for variable in option.variables}
    for name in sorted(names):
        if name not in known:
            hint = suggest_names(name, known) or "`spanproof config` lists the settings"
            raise SettingsError(f"{name} is not a setting; {hint}")


def resolve(options: list[Option], table: Table, path: Path | None, environment: Mapping[str, str]) -> list[Setting]:
    """Return the setting of each option, in the order of `options`. Raises SettingsError for an invalid value."""
    settings: list[Setting] = []
    for _, group in groupby(options, key=lambda option: option.command):
        of_command = list(group)
        from_file = {_name_field(option): found for option in of_command if (found := _find_in_table(option, table))}
        origins = {
            _name_field(option): _find_origin(option, environment, from_file.get(_name_field(option)), path)
            for option in of_command
        }
        values = _validate(of_command, {name: value for name, (_, value) in from_file.items()}, origins)
        for option in of_command:
            origin = origins[_name_field(option)]
            value = option.default if origin == DEFAULT else getattr(values, _name_field(option))
            settings.append(Setting(option, value, origin))
    return settings


def _find_in_table(option: Option, table: Table) -> tuple[str, Any] | None:
    """Return the path and the value of an option in the file: from the table of its command, or else from the top."""
    of_command: Any = table
    for word in option.command:
        of_command = of_command.get(word, {})
    if option.key in of_command:
        return option.path, of_command[option.key]
    if option.shared_key in table:
        return str(option.shared_key), table[str(option.shared_key)]
    return None


def _find_origin(
    option: Option, environment: Mapping[str, str], in_file: tuple[str, Any] | None, path: Path | None
) -> str:
    variable = next((name for name in option.variables if name in environment), None)
    return variable or (f"{path}: {in_file[0]}" if in_file else DEFAULT)


def _validate(options: list[Option], from_file: Table, origins: Mapping[str, str]) -> BaseSettings:
    fields: dict[str, Any] = {
        _name_field(option): (
            _annotate(option) | None,
            Field(None, validation_alias=AliasChoices(*option.variables, _name_field(option))),
        )
        for option in options
    }
    model = create_model("CommandSettings", __base__=_make_base(from_file), **fields)
    try:
        return model()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        names = {option.variables[0]: _name_field(option) for option in options}
        location = origins[names[str(first["loc"][0])]]
        message = first["msg"][0].lower() + first["msg"][1:]
        raise SettingsError(f"{location}: {message}, not {first['input']!r}") from None


def _name_field(option: Option) -> str:
    return f"option_{option.parameter}"  # some options have the names of methods of pydantic's models


def _annotate(option: Option) -> Any:
    if option.is_list:
        # A variable holds a list as words, as it does for Click; a file may hold one text instead of a list.
        return Annotated[list[str], NoDecode, BeforeValidator(_split_words)]
    low, high = option.limits
    return Annotated[option.type, Field(ge=low, le=high)]


def _split_words(value: Any) -> Any:
    return value.split() if isinstance(value, str) else value


def _make_base(from_file: Table) -> type[BaseSettings]:
    """Return a base class whose sources are the environment and then the file."""

    class Base(BaseSettings):
        model_config = SettingsConfigDict(case_sensitive=True, extra="ignore", populate_by_name=True)

        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_sources: Any, **_named_sources: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return EnvSettingsSource(settings_cls), InitSettingsSource(settings_cls, dict(from_file))

    return Base
