"""Leave in a project what a run would have left: every output there, and up to date.

Run as ``python made.py PROJECT``. Making 50,000 outputs by recipes would take minutes, and what
is measured afterwards is the planning.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lightcone.project.settings import load_settings
from lightcone.spec.outputs import load_outputs
from lightcone.state.fingerprint import fingerprint
from lightcone.state.manifest import Manifest, write_manifest
from lightcone.state.plan import assess, plan

_LONG_AGO_NS = 1_000_000_000 * 10**9


def _make(root: Path) -> None:
    # Nothing here has to outlive a power cut.
    os.fsync = lambda fd: None
    outputs = load_outputs(root, load_settings(root))
    assessed = plan(outputs)
    versions: dict[tuple[str, str], str] = {}
    for output in outputs:
        given = {
            each.id: versions[output.universe, each.producer]
            for each in output.inputs
            if each.producer is not None
        }
        provenance = assessed[output.key].provenance or assess(output, given).provenance
        assert provenance is not None, assessed[output.key].why
        output.path.parent.mkdir(parents=True, exist_ok=True)
        output.path.write_text(output.name)
        os.utime(output.path, ns=(_LONG_AGO_NS, _LONG_AGO_NS))
        data = fingerprint(output.path)
        versions[output.key] = data.version
        write_manifest(
            output.state_dir,
            Manifest(
                output.id, output.universe, provenance.identity, provenance, data, {"seconds": 0.1}
            ),
        )


if __name__ == "__main__":
    _make(Path(sys.argv[1]).resolve())
