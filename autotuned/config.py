"""The settings of a run: defaults < TOML file < AUTOTUNE_* environment < flags.

``__main__`` calls ``load`` once; ``options`` knows what may be set. Invariant: nothing is guessed.
An unknown name or a value out of range ends the start with a sentence that names the file and line,
the variable or the flag, and the nearest name that exists.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Any

import platformdirs
from autotune.address import runtime_directory
from autotune.state import state_directory

from autotuned.core.settings import Settings
from autotuned.core.upstream import parse_upstream
from autotuned.options import VARIABLE_PREFIX, Option, ValueRefused, options, sections, summary

CLIENT_VARIABLES = frozenset(
    {"AUTOTUNE_ADDRESS", "AUTOTUNE_HOST", "AUTOTUNE_MODEL", "AUTOTUNE_PORT", "AUTOTUNE_PROFILE"}
)
"""What clients read; a daemon that one of them starts inherits these and looks past them."""

_SHARED_FOLDERS = frozenset({"paths.runtime", "paths.state"})
"""The client library finds these, so that a daemon and its clients always mean the same folders."""

_UPSTREAMS = "openai.upstreams"
_FILE_VARIABLE = "AUTOTUNE_CONFIG"
_APP = "autotune"
_FILE_MAX_BYTES = 1024 * 1024
_LIST_COMMAND = '"autotuned --help-config" lists the options.'

Values = dict[str, object]
"""Values by dotted name."""


class ConfigInvalid(Exception):
    """An option is unknown or has a value that it cannot have. The message is one sentence for the user."""


def load(*, flags: Mapping[str, str], environment: Mapping[str, str], file: Path | None) -> Settings:
    """The settings of this run.

    ``flags`` have dotted names ("queue.max_waiting"). ``file`` None takes AUTOTUNE_CONFIG, then
    config.toml in the user's configuration folder if there is one. An empty variable counts as
    unset. Raises ``ConfigInvalid``.
    """
    values = _default_folders(environment)
    values |= _from_file(environment, file) | _from_environment(environment) | _from_flags(flags)
    by_section: dict[str, dict[str, Any]] = {section: {} for section in sections()}
    for key, value in values.items():
        section, _, name = key.partition(".")
        by_section[section][name] = value
    return Settings(**{section: kind(**by_section[section]) for section, kind in sections().items()})


def describe() -> str:
    """Every option with its default, its range and its documentation, for ``--help-config``."""
    folders = _default_folders(
        {name: text for name, text in os.environ.items() if not name.startswith(VARIABLE_PREFIX)}
    )
    lines = [
        f"Options come from {_default_file()} (or the file that {_FILE_VARIABLE} or --config names);",
        "the environment overrides the file, and --set overrides both.",
    ]
    for section in sections():
        lines += ["", f"[{section}]  {summary(section)}"]
        for option in options().values():
            if option.section == section:
                lines += [
                    f"  {option.name} = {_toml(folders.get(option.key, option.default))}",
                    f"      {option.doc[:1].upper()}{option.doc[1:]}.",
                    f"      {option.variable}: {option.expected()}",
                ]
    return "\n".join([*lines, ""])


def _default_folders(environment: Mapping[str, str]) -> Values:
    return {
        "paths.data": platformdirs.user_data_path(_APP, appauthor=False),
        "paths.runtime": runtime_directory(environment),
        "paths.state": state_directory(environment),
    }


def _default_file() -> Path:
    return platformdirs.user_config_path(_APP, appauthor=False) / "config.toml"


def _from_flags(flags: Mapping[str, str]) -> Values:
    values = {}
    for key, text in flags.items():
        where = f"--set {key}"
        values[key] = _parsed(_known(key, where), text, where)
    return values


def _from_environment(environment: Mapping[str, str]) -> Values:
    by_variable = {option.variable: option for option in options().values()}
    others = {*CLIENT_VARIABLES, _FILE_VARIABLE}
    values = {}
    for variable, text in sorted(environment.items()):
        if not variable.startswith(VARIABLE_PREFIX) or variable in others or not text:
            continue
        where = f"environment variable {variable}"
        option = by_variable.get(variable)
        if option is None:
            near = get_close_matches(variable, [*by_variable, *others], 1)
            raise ConfigInvalid(f"{where}: there is no such option; {_did_you_mean(near)}")
        if option.key not in _SHARED_FOLDERS:
            values[option.key] = _parsed(option, text, where)
    return values


def _from_file(environment: Mapping[str, str], file: Path | None) -> Values:
    named = file or (Path(environment[_FILE_VARIABLE]) if environment.get(_FILE_VARIABLE) else None)
    path = named or _default_file()
    try:
        text = _read(path)
        table = tomllib.loads(text)
    except FileNotFoundError as error:
        if named is None:
            return {}
        raise ConfigInvalid(f"{path}: there is no such file; make it, or do not name it.") from error
    except OSError as error:
        raise ConfigInvalid(f"{path}: it cannot be read ({error.strerror}).") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigInvalid(f"{path}: this is not TOML: {error}.") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise ConfigInvalid(f"{path}: this is not TOML in UTF-8.") from error

    values = {}
    for steps, raw in _entries(table):
        where = f"{path} line {_line_of(text, steps)}"
        option = _known(".".join(steps), where)
        if option.key in _SHARED_FOLDERS:
            raise ConfigInvalid(
                f"{where}: set {option.variable} instead; clients need it too and do not read this file."
            )
        try:
            values[option.key] = _sound(option, option.check(raw, path.absolute().parent))
        except ValueRefused as error:
            raise ConfigInvalid(f"{where}: {error}") from error
    return values


def _read(path: Path) -> str:
    with path.open("rb") as stream:
        content = stream.read(_FILE_MAX_BYTES + 1)
    if len(content) > _FILE_MAX_BYTES:
        raise ConfigInvalid(f"{path}: it has more than {_FILE_MAX_BYTES} bytes; this is no configuration.")
    return content.decode("utf-8-sig").replace("\r\n", "\n")


def _entries(table: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Section and name of each value; what is no section is an entry of its own."""
    for section, content in table.items():
        if section in sections() and isinstance(content, dict):
            yield from (((section, name), value) for name, value in content.items())
        else:
            yield (section,), content


def _line_of(text: str, steps: tuple[str, ...]) -> int:
    """The line where the statement that sets ``steps`` begins.

    tomllib tells no lines, so ever more lines are parsed until the name appears: slow, and exact
    for every way to write TOML.
    """
    begin = 1
    lines = text.split("\n")
    for number in range(1, len(lines) + 1):
        try:
            found: Any = tomllib.loads("\n".join(lines[:number]))
        except tomllib.TOMLDecodeError:
            continue  # within a statement of several lines
        for step in steps:
            found = found.get(step) if isinstance(found, dict) else None
        if found is not None:
            break
        begin = number + 1
    return begin


def _parsed(option: Option, text: str, where: str) -> object:
    try:
        return _sound(option, option.parse(text))
    except ValueRefused as error:
        raise ConfigInvalid(f"{where}: {error}") from error


def _sound(option: Option, value: object) -> object:
    """The value, where what it says in texts of its own has been read, too. Raises ``ValueRefused``."""
    if option.key == _UPSTREAMS and isinstance(value, tuple):
        for entry in value:
            try:
                parse_upstream(entry)
            except ValueError as error:
                raise ValueRefused(f"{option.key}: {error}") from error
    return value


def _known(key: str, where: str) -> Option:
    if option := options().get(key):
        return option
    if key in sections():
        raise ConfigInvalid(f"{where}: {key} is a section; write [{key}] with its options below.")
    section, _, name = key.rpartition(".")
    namesakes = [option.key for option in options().values() if option.name == name]
    alike = [f"[{each}]" for each in get_close_matches(section or name, sections(), 1)]
    near = namesakes or (alike if not section else []) or get_close_matches(key, options(), 1) or alike
    raise ConfigInvalid(f"{where}: there is no option {key}; {_did_you_mean(near)}")


def _did_you_mean(near: list[str]) -> str:
    return f"did you mean {near[0]}? {_LIST_COMMAND}" if near else _LIST_COMMAND


def _toml(value: object) -> str:
    if isinstance(value, Enum):
        return f'"{value.value}"'
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    return str(value) if isinstance(value, int | float) else f'"{value}"'
