"""User settings, from the environment or else the project's ``lightcone.toml``."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lightcone.errors import SettingsError
from lightcone.system.files import read_file
from lightcone.system.units import parse_seconds

__all__ = ["SETTINGS_FILE", "OutputSettings", "Settings", "load_settings"]

SETTINGS_FILE = "lightcone.toml"
_LONGEST = 10 * 366 * 86400.0
_KNOWN = {
    "session": {"forgotten_timeout", "idle_timeout", "scratch"},
    "run": {"grace", "observe", "oversized"},
    "results": {"depend_on", "ignore", "layout"},
}
# An example, and what is wrong with a pattern that leads elsewhere.
_PATTERNS = {
    "depend_on": (
        '["config/*.yaml", "src/**/*.R"]',
        "outside the project",
        "declare such files as inputs in astra.yaml",
    ),
    "ignore": (
        '["*.tmp", "scratch/*"]',
        "no path within an input",
        "give a name or a path from the input's directory",
    ),
}
_OUTPUTS = "outputs"


@dataclass(frozen=True)
class OutputSettings:
    """The settings of one output, under ``[outputs.NAME]``.

    Each field is a setting of that name, and its default is in force where nothing is set.

    Attributes:
        observe: False for a recipe that is never observed, whatever the run's settings.
        resume: whether its recipe always finds what it had written before, as with ``--resume``.
    """

    observe: bool = True
    resume: bool = False


_OUTPUT_DEFAULTS = OutputSettings()


@dataclass(frozen=True)
class Settings:
    """The settings in force for one project.

    Attributes:
        idle_timeout: seconds without use after which a session ends by itself.
        scratch: where sessions and locks are kept, or None for the default of this host.
        runtime_dir: where sockets are kept, or None for the default of this user.
        grace: seconds between asking a recipe to end and ending it.
        oversized: what happens to a recipe that asks for more than any worker has,
            ``"refuse"`` or ``"clamp"`` (run it with all that the largest worker has).
        layout: how outputs are laid out, ``"file"``, ``"directory"`` or ``"auto"``.
        depend_on: patterns of the project's files that every output depends on besides those
            that its command names; ``**`` stands for any directories.
        ignore: patterns of files that do not count in inputs that are directories, besides those
            that never do; one without ``/`` matches a name at any depth, any other a path within
            the directory.
        forgotten_timeout: seconds after which a session ends in which a program holds results,
            but nothing is computed and nothing asked.
        observe: whether recipes are observed, which finds the project's files that they use.
        outputs: what is set for single outputs, by ``id``, ``sub.id`` or ``universe/id``.
    """

    idle_timeout: float = 1800.0
    scratch: Path | None = None
    runtime_dir: Path | None = None
    grace: float = 10.0
    oversized: str = "refuse"
    layout: str = "auto"
    depend_on: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    forgotten_timeout: float = 86400.0
    observe: bool = False
    outputs: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)

    def for_output(self, universe: str, id: str) -> OutputSettings:
        """Return the settings of one output; what is set for a single universe wins."""
        if not self.outputs:
            return _OUTPUT_DEFAULTS
        in_all, in_one = self.outputs.get(id, {}), self.outputs.get(f"{universe}/{id}", {})
        return OutputSettings(**{**in_all, **in_one})


def load_settings(root: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """Load the settings of the project at ``root``; environment values win.

    Raises:
        SettingsError: where the file or a variable cannot be used.
    """
    environ = os.environ if environ is None else environ
    table = _read(root / SETTINGS_FILE)
    session, run, results = (table.get(name, {}) for name in ("session", "run", "results"))
    where = f"in {root / SETTINGS_FILE}"
    default = Settings()
    idle, idle_where = session.get("idle_timeout", default.idle_timeout), where
    if environ.get("LIGHTCONE_IDLE_TIMEOUT"):
        idle, idle_where = environ["LIGHTCONE_IDLE_TIMEOUT"], "in LIGHTCONE_IDLE_TIMEOUT"
    forgotten = session.get("forgotten_timeout", default.forgotten_timeout)
    scratch = environ.get("LIGHTCONE_SCRATCH") or session.get("scratch") or None
    if scratch is not None and not isinstance(scratch, str):
        raise SettingsError(f"'scratch' {where} is {scratch!r}: give a directory's path.")
    return Settings(
        idle_timeout=_duration("idle_timeout", idle, idle_where),
        forgotten_timeout=_duration("forgotten_timeout", forgotten, where),
        scratch=_directory(scratch, root),
        runtime_dir=_directory(environ.get("LIGHTCONE_RUNTIME_DIR"), root),
        grace=_duration("grace", run.get("grace", default.grace), where),
        oversized=_choice(run, "oversized", ("refuse", "clamp"), where),
        layout=_choice(results, "layout", ("auto", "file", "directory"), where),
        depend_on=_patterns("depend_on", results.get("depend_on", []), where),
        ignore=_patterns("ignore", results.get("ignore", []), where),
        observe=_switch("observe", run.get("observe", default.observe), where),
        outputs=dict(_outputs(table.get(_OUTPUTS, {}), "", where)),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(read_file(path).decode())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"The settings file {path} cannot be read: {why}.") from error
    except RecursionError as error:
        raise SettingsError(f"{path} is nested too deeply: check its brackets.") from error
    for section, values in table.items():
        if section not in _KNOWN and section != _OUTPUTS:
            known = ", ".join(f"[{name}]" for name in (*_KNOWN, f"{_OUTPUTS}.NAME"))
            closest = _closest(section, [*_KNOWN, _OUTPUTS])
            raise SettingsError(
                f"{path} has an unknown section [{section}]: {closest}known are {known}."
            )
        if not isinstance(values, dict):
            raise SettingsError(f"'{section}' in {path} must be a section: write [{section}].")
        if section == _OUTPUTS:
            continue
        for key in values:
            if key not in _KNOWN[section]:
                known = ", ".join(sorted(_KNOWN[section]))
                raise SettingsError(
                    f"{path} has an unknown setting '{key}' in [{section}]: "
                    f"{_closest(key, sorted(_KNOWN[section]))}known are {known}."
                )
    return table


def _outputs(table: Any, above: str, where: str) -> Iterator[tuple[str, dict[str, bool]]]:
    """Yield what ``[outputs]`` sets for each output, by name.

    ``[outputs.sub.id]`` and ``[outputs."sub.id"]`` are the same.
    """
    known = {each.name for each in fields(OutputSettings)}
    for name, values in table.items():
        qualified = f"{above}{name}"
        if not isinstance(values, dict):
            example = f"{above.removesuffix('.') or 'NAME'}"
            raise SettingsError(
                f"'{name}' under [{_OUTPUTS}] {where} belongs to no output: write it under "
                f"[{_OUTPUTS}.{example}]."
            )
        own = {key: value for key, value in values.items() if not isinstance(value, dict)}
        for key in own:
            if key not in known:
                raise SettingsError(
                    f"[{_OUTPUTS}.{qualified}] {where} has an unknown setting '{key}': "
                    f"{_closest(key, sorted(known))}known are {', '.join(sorted(known))}."
                )
        if own or not values:
            yield qualified, {key: _switch(key, value, where) for key, value in own.items()}
        below = {key: value for key, value in values.items() if isinstance(value, dict)}
        yield from _outputs(below, f"{qualified}.", where)


def _closest(name: str, known: list[str]) -> str:
    """Return a question that names the closest known name, if any is close."""
    from difflib import get_close_matches

    matches = get_close_matches(name, known, 1)
    return f"did you mean '{matches[0]}'? " if matches else ""


def _switch(name: str, value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise SettingsError(f"'{name}' {where} is {value!r}: write true or false.")
    return value


def _duration(name: str, value: Any, where: str) -> float:
    try:
        seconds = parse_seconds(value)
    except ValueError as error:
        raise SettingsError(f"'{name}' {where}: {error}.") from error
    if seconds <= 0:
        raise SettingsError(f"'{name}' {where} is {value!r}: it must be more than zero.")
    if seconds > _LONGEST:
        raise SettingsError(f"'{name}' {where} is {value!r}: it may be ten years at most.")
    return seconds


def _choice(table: Mapping[str, Any], name: str, allowed: tuple[str, ...], where: str) -> str:
    value = table.get(name, getattr(Settings, name))
    if value not in allowed:
        raise SettingsError(f"'{name}' {where} is {value!r}: use one of {', '.join(allowed)}.")
    return str(value)


def _patterns(name: str, value: Any, where: str) -> tuple[str, ...]:
    example, outside, remedy = _PATTERNS[name]
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise SettingsError(
            f"'{name}' {where} is {value!r}: give a list of patterns, as in {example}."
        )
    for each in value:
        if each.startswith(("/", "~")) or ".." in each.split("/"):
            raise SettingsError(f"'{name}' {where} has {each!r}, which is {outside}: {remedy}.")
    return tuple(value)


def _directory(text: str | None, root: Path) -> Path | None:
    if not text:
        return None
    try:
        if "\0" in text:
            raise ValueError("it has a zero byte in it")
        return root / Path(os.path.expandvars(text)).expanduser()
    except (ValueError, RuntimeError) as error:
        raise SettingsError(f"The directory {text!r} cannot be used: {error}.") from error
