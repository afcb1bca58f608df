"""User settings, from the environment or else the project's ``lightcone.toml``."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
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
    "run": {"grace", "oversized"},
    "results": {"depend_on", "layout"},
}
_OUTPUTS = "outputs"
_KNOWN_OF_AN_OUTPUT = {"resume"}


@dataclass(frozen=True)
class OutputSettings:
    """The settings of one output, ``[outputs.NAME]``.

    Attributes:
        resume: whether its recipe always finds what it had written before, as with ``--resume``.
    """

    resume: bool = False


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
        forgotten_timeout: seconds after which a session ends in which a program holds results,
            but nothing is computed and nothing asked.
        outputs: the settings of single outputs, by qualified id.
    """

    idle_timeout: float = 1800.0
    scratch: Path | None = None
    runtime_dir: Path | None = None
    grace: float = 10.0
    oversized: str = "refuse"
    layout: str = "auto"
    depend_on: tuple[str, ...] = ()
    forgotten_timeout: float = 86400.0
    outputs: Mapping[str, OutputSettings] = field(default_factory=dict)

    def of_output(self, name: str) -> OutputSettings:
        """Return the settings of the output with that qualified id."""
        return self.outputs.get(name, _NO_SETTINGS)


_NO_SETTINGS = OutputSettings()


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
        depend_on=_patterns(results.get("depend_on", []), where),
        outputs=_outputs(table.get(_OUTPUTS, {}), where),
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
            raise SettingsError(f"{path} has an unknown section [{section}]: known are {known}.")
        if not isinstance(values, dict):
            raise SettingsError(f"'{section}' in {path} must be a section: write [{section}].")
        for key in values if section in _KNOWN else ():
            if key not in _KNOWN[section]:
                known = ", ".join(sorted(_KNOWN[section]))
                raise SettingsError(
                    f"{path} has an unknown setting '{key}' in [{section}]: known are {known}."
                )
    return table


def _outputs(table: Mapping[str, Any], where: str) -> dict[str, OutputSettings]:
    found = {}
    for name, values in table.items():
        section = f"[{_OUTPUTS}.{name}]"
        if not isinstance(values, dict):
            raise SettingsError(
                f"'{name}' in [{_OUTPUTS}] {where} must be a section: write {section}."
            )
        for key, value in values.items():
            if key in _KNOWN_OF_AN_OUTPUT:
                continue
            if isinstance(value, dict):
                raise SettingsError(
                    f"[{_OUTPUTS}.{name}.{key}] {where} names no output: write "
                    f'[{_OUTPUTS}."{name}.{key}"].'
                )
            known = ", ".join(sorted(_KNOWN_OF_AN_OUTPUT))
            raise SettingsError(
                f"{section} {where} has an unknown setting '{key}': known are {known}."
            )
        resume = values.get("resume", False)
        if not isinstance(resume, bool):
            raise SettingsError(f"'resume' of {section} {where} is {resume!r}: use true or false.")
        found[name] = OutputSettings(resume=resume)
    return found


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


def _patterns(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise SettingsError(
            f"'depend_on' {where} is {value!r}: give a list of patterns, as in "
            '["config/*.yaml", "src/**/*.R"].'
        )
    for each in value:
        if each.startswith(("/", "~")) or ".." in each.split("/"):
            raise SettingsError(
                f"'depend_on' {where} has {each!r}, which is outside the project: declare such "
                "files as inputs in astra.yaml."
            )
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
