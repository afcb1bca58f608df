"""The keys of a spec that ASTRA knows, and checks for all others.

A key that lc does not read changes nothing, though its author believes that it does. So an unknown
key is refused where every key decides a result, where it resembles a key that does, and where it
belongs to another place. Any other unknown key is ignored with a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from lightcone.errors import SpecError
from lightcone.project.settings import OutputSettings
from lightcone.spec.suggestions import capped, closest

__all__ = [
    "ANALYSIS",
    "DECISION",
    "INPUT",
    "OPTION",
    "OUTPUT",
    "RECIPE",
    "RESOURCES",
    "UNIVERSE",
    "UNIVERSE_NODE",
    "Place",
    "UnknownKeys",
]

# Prose, which is harmless in every place, though ASTRA does not have each of these in all.
_PROSE = frozenset({"authors", "description", "label", "narrative", "notes", "rationale", "tags"})

_SHORTEST_ABBREVIATION = 4


@dataclass(frozen=True)
class Place:
    """A kind of mapping in a spec, and its keys.

    Attributes:
        known: the keys that ASTRA's schema declares.
        deciding: those that decide what is made; None: every key here does, known or not.
        older: keys of older versions that decide nothing.
        moved: keys that belong elsewhere or that mean another one, with the advice to give.
        advice: what to do about a key that resembles none.
        accepted: the keys that need no further look.
    """

    known: frozenset[str]
    deciding: frozenset[str] | None = None
    older: frozenset[str] = frozenset()
    moved: Mapping[str, str] = field(default_factory=dict)
    advice: str = ""
    accepted: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "accepted", self.known | self.older | _PROSE)

    def judge(self, key: str) -> tuple[bool, str]:
        """Return whether an unknown key is refused, and the advice to give."""
        plain = re.sub(r"\W", "_", key.lower())
        advice = self.moved.get(plain)
        if advice is not None:
            return True, advice
        similar = closest(plain, self.known, 2) or self._abbreviated(plain)
        if similar is not None:
            is_refused = self.deciding is None or similar in self.deciding
            advice = f"did you mean '{similar}'?"
            return is_refused, advice if is_refused else f"which is ignored: {advice}"
        # These are many, and a word of another meaning must not be taken for one of them.
        moved = closest(plain, [name for name in self.moved if name[0] == plain[:1]], 1)
        if moved is not None:
            return True, self.moved[moved]
        if self.deciding is None:
            return True, self.advice
        return False, "which is ignored: remove it, or correct its name."

    def _abbreviated(self, plain: str) -> str | None:
        """Return the known key that begins with ``plain``."""
        if len(plain) < _SHORTEST_ABBREVIATION:
            return None
        return next((name for name in sorted(self.known) if name.startswith(plain)), None)


class UnknownKeys:
    """Collector of the unknown keys that are ignored."""

    def __init__(self) -> None:
        self._ignored: dict[tuple[str, str, str], list[str]] = {}
        self._verdicts: dict[tuple[int, str], tuple[bool, str]] = {}

    def check(self, place: Place, node: Mapping[Any, Any], label: str, file: str) -> None:
        """Refuse or record the unknown keys of ``node``, which messages call ``label``.

        Raises:
            SpecError: for a key that may have been meant to decide something.
        """
        if not place.accepted.issuperset(node):
            for key in node:
                if key not in place.accepted:
                    self._judge(place, str(key), label, file)

    def warnings(self) -> list[str]:
        """Return one sentence for each ignored key of each file, up to a limit."""
        sentences = []
        for (_, key, advice), labels in self._ignored.items():
            more = f" (and {len(labels) - 1} more)" if len(labels) > 1 else ""
            sentences.append(f"{labels[0]}{more} has an unknown key '{key}', {advice}")
        return capped(sentences)

    def _judge(self, place: Place, key: str, label: str, file: str) -> None:
        # Thousands of outputs may have the same unknown key.
        verdict = self._verdicts.get((id(place), key))
        if verdict is None:
            verdict = self._verdicts[id(place), key] = place.judge(key)
        is_refused, advice = verdict
        if is_refused:
            raise SpecError(f"{label} has an unknown key '{key}': {advice}")
        self._ignored.setdefault((file, key, advice), []).append(label)


def _keys(*names: str) -> frozenset[str]:
    return frozenset(names)


def _moved(advice: str, names: Iterable[str]) -> dict[str, str]:
    return dict.fromkeys(names, advice)


_IN_RECIPE = _moved("it belongs under an output's 'recipe'.", ("command", "container", "resources"))
_IN_RESOURCES = _moved(
    "it belongs under 'resources' of a recipe.", ("cpus", "disk", "gpus", "memory", "time_limit")
)
_IN_OUTPUT = _moved(
    "it belongs to an output, beside its 'recipe'.",
    ("decisions", "format", "inputs", "recipe", "when"),
)
_IN_DECISION = _moved("it belongs to a decision.", ("default", "options"))
_IN_OPTION = _moved(
    "it belongs to an option of a decision.", ("excluded", "incompatible_with", "requires")
)
_MEANING_INPUTS = _moved(
    "did you mean 'inputs'?",
    ("dependencies", "depends", "depends_on", "dependson", "deps", "input", "needs", "requires"),
)
_COMMANDS = ("cmd", "exec", "run", "script", "shell")
_IMAGES = ("docker", "image")
_SYNONYMS = {
    "cpus": ("cores", "cpu", "processors", "threads"),
    "gpus": ("gpu",),
    "memory": ("mem", "ram"),
    "time_limit": ("timeout", "walltime"),
}
_IN_RESULTS = _moved(
    "it is a setting, under [results] in lightcone.toml.", ("depend_on", "ignore", "layout")
)
_OF_OUTPUT = _moved(
    "it is a setting, under [outputs.NAME] in lightcone.toml.",
    [setting.name for setting in fields(OutputSettings)],
)
_ENVIRONMENT = _moved(
    "a recipe has the caller's environment; set other variables in its 'command'.",
    ("env", "environment"),
)
_UNIVERSES = "a universe is a file: move each to universes/<name>.yaml."

ANALYSIS = Place(
    known=_keys(
        *("analyses", "container", "decisions", "description", "findings", "id", "inputs", "name"),
        *("outputs", "path", "prior_insights", "tags", "version"),
    ),
    deciding=_keys("analyses", "container", "decisions", "inputs", "outputs", "path"),
    older=_keys("$schema", "insights", "papers", "success_criteria"),
    moved={
        "universe": _UNIVERSES,
        "universes": _UNIVERSES,
        **_moved(_IN_RECIPE["command"], ("command", "resources")),
        **_moved(_IN_OUTPUT["recipe"], ("recipe", "when")),
        **_moved("did you mean 'command', in an output's 'recipe'?", _COMMANDS),
        **_moved("did you mean 'container'?", _IMAGES),
        **{name[:-1]: f"did you mean '{name}'?" for name in ("decisions", "inputs", "outputs")},
        "analysis": "did you mean 'analyses'?",
        **_moved("it is a setting, under [run] in lightcone.toml.", ("grace", "observe")),
        **_IN_RESULTS,
        **_ENVIRONMENT,
    },
)
INPUT = Place(
    known=_keys(
        *("description", "from", "id", "label", "ref", "ref_version", "source", "type"),
        "use_outputs",
    ),
    moved={
        **_moved("did you mean 'source'?", ("file", "location", "path", "uri", "url")),
        **_IN_RECIPE,
        **_IN_OUTPUT,
        "checksum": "lc does not check it; remove it, or check it in a recipe.",
    },
    advice="it has 'id', 'type', 'source' and 'from'.",
)
OUTPUT = Place(
    known=_keys(
        *("decisions", "description", "format", "from", "id", "inputs", "label", "recipe"),
        *("type", "when"),
    ),
    deciding=_keys("decisions", "format", "from", "inputs", "recipe", "when"),
    moved={
        **_IN_RECIPE,
        **_IN_RESOURCES,
        **_IN_DECISION,
        **_IN_OPTION,
        **_MEANING_INPUTS,
        **_moved("did you mean 'command', under 'recipe'?", _COMMANDS),
        **_moved("did you mean 'container', under 'recipe'?", _IMAGES),
        **_moved("did you mean 'when'?", ("condition", "if")),
        **_moved("did you mean 'format'?", ("ext", "extension", "suffix")),
        **_moved("lc decides the path, which a command has as {output}.", ("output", "outputs")),
        **{
            word: f"did you mean '{name}', under 'resources' of a recipe?"
            for name, words in _SYNONYMS.items()
            for word in words
        },
        **_OF_OUTPUT,
        **_IN_RESULTS,
        **_ENVIRONMENT,
        "source": "it belongs to an input.",
    },
)
RECIPE = Place(
    known=_keys("command", "container", "resources"),
    moved={
        **_IN_OUTPUT,
        **_IN_RESOURCES,
        **_MEANING_INPUTS,
        **_moved("did you mean 'command'?", _COMMANDS),
        **_moved("did you mean 'container'?", _IMAGES),
        **_OF_OUTPUT,
        **_ENVIRONMENT,
    },
    advice="it has 'command', 'resources' and 'container'.",
)
RESOURCES = Place(
    known=_keys("cpus", "disk", "gpus", "memory", "time_limit"),
    moved={
        **{word: f"did you mean '{name}'?" for name, words in _SYNONYMS.items() for word in words},
        "time": "did you mean 'time_limit'?",
        **_IN_RECIPE,
    },
    advice="they are 'cpus', 'memory', 'gpus', 'time_limit' and 'disk'.",
)
DECISION = Place(
    known=_keys("default", "from", "id", "label", "options", "rationale", "tags", "when"),
    older=_keys("importance", "type"),
    moved={**_IN_OPTION, **_moved("did you mean 'options'?", ("choices", "values"))},
    advice="it has 'options', 'default', 'when' and 'from'.",
)
OPTION = Place(
    known=_keys(
        *("description", "excluded", "excluded_reason", "id", "incompatible_with", "insights"),
        *("label", "requires"),
    ),
    older=_keys("evidence"),
    moved={
        "conflicts_with": "did you mean 'incompatible_with'?",
        "value": "a command gets the option's id; make that the value.",
    },
    advice="it has 'label', 'excluded', 'requires' and 'incompatible_with'.",
)
UNIVERSE = Place(
    known=_keys("analyses", "decisions", "description", "id"),
    older=_keys("$schema", "name", "version"),
    moved={"universe": "only one of a sub-analysis can be chosen, under 'analyses'."},
    advice="write the options it chooses under 'decisions'.",
)
UNIVERSE_NODE = Place(
    known=_keys("analyses", "decisions", "id", "universe"),
    advice="write the options it chooses under 'decisions'.",
)
