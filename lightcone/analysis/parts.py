"""What determines an output."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from lightcone.analysis.fingerprint import Stamp

__all__ = ["Parts", "Source"]


@dataclass(frozen=True, slots=True)
class Source:
    """What one input was: its text in the command, the version of its bytes, and, for one that
    no output makes, the stamps of the files it consists of."""

    text: str
    version: str
    files: dict[str, Stamp] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that determines an output, and nothing else.

    Attributes:
        command: the rendered command.
        template: the command as declared; kept to explain a difference, not part of the identity.
        container: the image, if any.
        files: the project's files that it depends on, by their path from the root.
        inputs: the declared inputs, by id.
        decisions: the declared decisions and their options.
    """

    command: str
    template: str
    container: str | None = None
    files: dict[str, Stamp] = field(default_factory=dict)
    inputs: dict[str, Source] = field(default_factory=dict)
    decisions: dict[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """SHA-256, in hexadecimal, of what determines the output."""
        determines = [
            self.command,
            self.container,
            sorted((name, stamp.sha256) for name, stamp in self.files.items()),
            sorted((name, source.version) for name, source in self.inputs.items()),
            sorted(self.decisions.items()),
        ]
        return hashlib.sha256(json.dumps(determines).encode()).hexdigest()
