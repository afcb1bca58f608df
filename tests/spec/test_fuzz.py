"""Whatever stands in a spec: outputs, or one sentence."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lightcone.errors import SpecError
from lightcone.project.settings import Settings
from lightcone.spec.outputs import load_outputs
from lightcone.state.plan import plan
from tests.fuzzing import SOAKED, examples
from tests.spec.test_outputs import NESTED, SUB

pytestmark = pytest.mark.timeout(0 if SOAKED else 120)

SPEC = yaml.safe_load(NESTED)
SPEC["analyses"]["part"] = {"path": "part"}
SPEC["outputs"][0]["recipe"]["resources"] = {"cpus": 2, "memory": "1Gi", "time_limit": "1h"}
SPEC["outputs"][4]["when"] = "cut.loose"
UNIVERSE = {
    "id": "u",
    "decisions": {"cut": "loose"},
    "analyses": {"fit": {"decisions": {"own": "b"}}, "part": {"universe": "v"}},
}
SUB_UNIVERSE = {"id": "v", "decisions": {"cut": "strict"}}
NAMES = st.sampled_from(
    ["cut", "own", "raw", "fit", "fit.slope", "../raw", "../../raw", "../fit.slope", "deep.bottom",
     "cut.loose", "~cut.strict", "{output}", "{inputs}", "{inputs.raw}", "{x", "csv", "a/b", "on",
     "strict", "", " ", "..", "part", "../part.fit", ".", "*", "12", "path", "from", "when"]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | NAMES | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


def mutate(data: st.DataObject, content: Any) -> Any:
    """The content with one place in it changed, renamed or left out."""
    content = copy.deepcopy(content)
    place = content
    while True:
        keys = sorted(place, key=str) if isinstance(place, dict) else range(len(place))
        key: Any = data.draw(st.sampled_from(list(keys)))
        inner = place[key]
        if isinstance(inner, dict | list) and inner and data.draw(st.integers(0, 4)):
            place = inner
            continue
        how = data.draw(st.sampled_from(["change", "change", "leave out", "rename", "repeat"]))
        if how == "leave out":
            del place[key]
        elif how == "rename" and isinstance(place, dict):
            place[data.draw(NAMES)] = place.pop(key)
        elif how == "repeat" and isinstance(place, list):
            place.append(inner)
        else:
            place[key] = data.draw(JSON)
        return content


@examples(250)
@given(data=st.data())
def test_any_spec(data: st.DataObject) -> None:
    files: dict[str, Any] = {
        "astra.yaml": SPEC,
        "universes/u.yaml": UNIVERSE,
        "part/astra.yaml": yaml.safe_load(SUB),
        "part/universes/v.yaml": SUB_UNIVERSE,
    }
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(["astra.yaml", *files]))
        if isinstance(files[name], dict) and files[name]:
            files[name] = mutate(data, files[name])
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory).resolve()
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(json.dumps(content))
        try:
            outputs = load_outputs(root, Settings())
        except SpecError as error:
            sentence = str(error)
            assert sentence.endswith((".", "?")), sentence
            assert "Error" not in sentence, sentence
            return
        for output in outputs:
            assert output.command
            assert output.path.is_relative_to(root)
            assert output.state_dir.is_relative_to(root)
        assert len({output.path for output in outputs}) == len(outputs)
        assert len({output.state_dir for output in outputs}) == len(outputs)
        assert list(plan(outputs)) == [output.key for output in outputs]


@examples(150)
@given(text=st.text(st.sampled_from("ab:-[]{}'\"#&*!|>\n \t?,0%@`\\")))
def test_any_text(text: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory).resolve()
        (root / "astra.yaml").write_text(text)
        try:
            assert load_outputs(root, Settings()) == []
        except SpecError as error:
            assert str(error).startswith(("astra.yaml ", "'", "Entry ", "Output ", "Decision "))


def test_the_unchanged_one_is_good(tmp_path: Path) -> None:
    # Else the fuzzing would only ever see the first check.
    root = tmp_path.resolve()
    (root / "part/universes").mkdir(parents=True)
    (root / "universes").mkdir()
    (root / "astra.yaml").write_text(json.dumps(SPEC))
    (root / "universes/u.yaml").write_text(json.dumps(UNIVERSE))
    (root / "part/astra.yaml").write_text(SUB)
    (root / "part/universes/v.yaml").write_text(json.dumps(SUB_UNIVERSE))
    assert len(load_outputs(root, Settings())) == 7
