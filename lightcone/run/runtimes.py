"""The runtimes for containers that this machine has."""

from __future__ import annotations

import re
import shutil

from lightcone.analysis.spec import load_outputs
from lightcone.answer import answer
from lightcone.context import SPEC_FILE, Context
from lightcone.errors import LightconeError
from lightcone.run.image import Runtime
from lightcone.session.finding import Check, Verdict

__all__ = ["check"]


def check(context: Context) -> Check:
    """Whether what the project at ``context`` declares can be run, and what would run it."""
    name = "containers"
    found = [each for each in Runtime if shutil.which(each) is not None]
    if not found:
        wanting = _wanting(context)
        if not wanting:
            return Check(name, Verdict.OK, "no runtime for them, and no output here that needs one")
        told = f"no runtime for them, and {wanting} of the outputs here need one"
        return Check(name, Verdict.WARNING, told, "install apptainer or podman, or load its module")
    told = f"{_described(found[0])} runs them"
    if len(found) > 1:
        told += f"; {', '.join(map(_described, found[1:]))} would, were it the first found"
    if found[0] is Runtime.DOCKER and answer("docker", "info") is None:
        told = f"{_described(found[0])} would run them, and its engine does not answer"
        return Check(name, Verdict.WARNING, told, "start it, or install apptainer or podman")
    return Check(name, Verdict.OK, told)


def _described(runtime: Runtime) -> str:
    number = re.search(r"\d+(\.\d+)+", answer(runtime, "--version") or "")
    return f"{runtime} {number[0]}" if number else f"{runtime}, which does not tell its version,"


def _wanting(context: Context) -> int:
    """How many outputs declare a container; 0 outside a project, or in a broken one."""
    if not (context.root / SPEC_FILE).is_file():
        return 0
    try:
        outputs = load_outputs(context.root, context.settings)
    except LightconeError:
        return 0
    return len({output.id for output in outputs if output.container})
