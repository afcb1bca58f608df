"""Commands as the shell gets them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightcone.errors import SpecError
from lightcone.spec.template import Value, compile_template


def render(command: str, **values: str) -> str:
    """Render with inputs named here, the output, and the decision ``d``."""
    output = values.pop("output", "results/u/x")
    decision = values.pop("d", "a")
    template = compile_template(command, values, ["d"], "Output 'x'")
    given: dict[str, Value] = {"output": Value((output,)), "decisions.d": Value((decision,))}
    given |= {f"inputs.{name}": Value((text,), text) for name, text in values.items()}
    return template.render_as_written(given)


@pytest.mark.parametrize(
    ("command", "values", "expected"),
    [
        ("plain", {}, "plain"),
        ("  spaced out\n", {}, "spaced out"),
        (
            "run {inputs} -o {output}",
            {"a": "a.csv", "b": "b.csv"},
            "run a.csv b.csv -o results/u/x",
        ),
        ("run{inputs}", {}, "run"),
        ("{inputs.a}/{decisions.d}/x", {"a": "a"}, "a/a/x"),
        ("awk '{{print $1}}' {inputs.a}", {"a": "a"}, "awk '{print $1}' a"),
        ("echo ${{HOME}}", {}, "echo ${HOME}"),
        ("{inputs.part.fit}", {"part.fit": "p"}, "p"),
        ("cat {inputs.a}", {"a": "two words"}, "cat 'two words'"),
        ("cat {inputs.a}", {"a": "it's"}, "cat 'it'\"'\"'s'"),
        ('cat "{inputs.a}"', {"a": "two words"}, 'cat "two words"'),
        ('cat "{inputs.a}"', {"a": 'a"$b`c\\'}, 'cat "a\\"\\$b\\`c\\\\"'),
        ("cat '{inputs.a}'", {"a": "it's"}, "cat 'it'\\''s'"),
        ("cat '{inputs.a}'", {"a": "$X"}, "cat '$X'"),
        ("cat {inputs.a}", {"a": "data/*.csv"}, "cat data/*.csv"),
        ("cat {inputs.a}", {"a": "$DATA/${N}/x?.csv"}, "cat $DATA/${N}/x?.csv"),
        ("cat {inputs.a}", {"a": "~/x"}, "cat ~/x"),
        ("cat {inputs.a}", {"a": "x~/*"}, "cat 'x~/*'"),
        ("cat {inputs.a}", {"a": "$(rm x)"}, "cat '$(rm x)'"),
        ("cat {inputs.a}", {"a": "a;b&c|d"}, "cat 'a;b&c|d'"),
        ("cat {inputs.a}", {"a": "$DATA/two words"}, "cat '$DATA/two words'"),
        ('cat "$(ls {inputs.a})"', {"a": "two words"}, "cat \"$(ls 'two words')\""),
        ("# don't\ncat {inputs.a}", {"a": "a b"}, "# don't\ncat 'a b'"),
        ("x#y' {inputs.a}'", {"a": "a b"}, "x#y' a b'"),
        ("echo \\' {inputs.a}", {"a": "a b"}, "echo \\' 'a b'"),
        ("(cd x; cat {inputs.a}) {output}", {"a": "a b"}, "(cd x; cat 'a b') results/u/x"),
        ("pick {decisions.d}", {"d": "*"}, "pick '*'"),
        ("pick {decisions.d}", {"d": "200m"}, "pick 200m"),
        ("> {output}", {"output": "results/my universe/x"}, "> 'results/my universe/x'"),
    ],
)
def test_rendering(command: str, values: Mapping[str, str], expected: str) -> None:
    assert render(command, **values) == expected


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("cat {inputs.a}", "cat d/1 'd/a b'"),
        ('cat "{inputs.a}" x', 'cat "d/1" "d/a b" x'),
        ("cat '{inputs.a}'|sort", "cat 'd/1' 'd/a b'|sort"),
        ("cat $(ls {inputs.a})", "cat $(ls d/1 'd/a b')"),
        ("cat `ls {inputs.a}`", "cat `ls d/1 'd/a b'`"),
        ("a=({inputs.a}); b", "a=(d/1 'd/a b'); b"),
        ("cat \\\n{inputs.a}\\\n > x", "cat \\\nd/1 'd/a b'\\\n > x"),
        ("cat {inputs} x", "cat d/1 'd/a b' x"),
        ("cat {inputs.a}>x", "cat d/1 'd/a b'>x"),
        ("cat --in={inputs.a}", None),
        ("cat {inputs.a}.bak", None),
        ('cat "in {inputs.a}"', None),
        ('cat "$(ls "{inputs.a}")x"', 'cat "$(ls "d/1" "d/a b")x"'),
        ("cat x'{inputs.a}'", None),
        ("cat {inputs.a}{inputs.a}", None),
        ("cat {inputs.a}'{inputs.a}'", None),
        ("cat x\\ {inputs.a}", None),
        ("cat x\\\n{inputs.a}", None),
        ("sort < {inputs.a}", None),
        ("sort 2>&1 >{inputs.a}", None),
        ('sort < "{inputs.a}"', None),
        ("A={inputs.a} b", None),
        ("cat <<EOF\n{inputs.a}\nEOF", None),
    ],
)
def test_several_words(command: str, expected: str | None) -> None:
    template = compile_template(command, ["a"], [], "Output 'x'")
    words = {"inputs.a": ("d/1", "d/a b")}
    crowded = template.first_crowded(words)
    assert crowded == ("inputs.a" if expected is None else None)
    if expected is not None:
        assert template.render({"inputs.a": Value(words["inputs.a"], "d/*")}) == expected
    one = {"inputs.a": ("d/1",)}
    assert template.first_crowded(one) is None


@pytest.mark.parametrize(
    "template",
    [
        "cat <<EOF\n{inputs.a}\nEOF\n",
        "cat <<'EOF'\n{inputs.a}\nEOF\n",
        "cat <<-EOF # it's\n\t{inputs.a}\n\tEOF\n",
        "cat <<A; cat <<'B'\n{inputs.a}\nA\nit's\nB\n",
        "cat <<A\nit's \\$ `echo x`\nA\ncat <<\\B\n{inputs.a}\nB\n",
        "cat <<A\n$(printf %s {inputs.a})\nA\n",
        "echo $((1 << 2))\nprintf '%s\\n' {inputs.a}\n",
        "printf %s x <<<y\nprintf '%s\\n' {inputs.a}\n",
        "cat <<A\nit's\nA\nprintf '%s\\n' \"{inputs.a}\"\n",
    ],
)
def test_here_documents(template: str) -> None:
    for text in ("plain", "two words", "it's", '"$HOME" `x` \\n', "a*"):
        command = compile_template(template, ["a"], [], "x").render({"inputs.a": Value((text,))})
        result = subprocess.run(
            ["bash", "-c", command], capture_output=True, check=True, timeout=60
        )
        assert text in result.stdout.decode().splitlines() or "x" + text in (
            result.stdout.decode().splitlines()
        ), command


@pytest.mark.parametrize(
    "template",
    ["printf %s {inputs.a}", 'printf %s "{inputs.a}"', "printf %s '{inputs.a}'",
     'printf %s "$(printf %s {inputs.a})"', "# it's\nprintf %s {inputs.a}"],
)  # fmt: skip
@given(text=st.text(st.characters(exclude_characters="\0\r", codec="utf-8"), min_size=1))
def test_the_shell_reads_back_the_value(template: str, text: str) -> None:
    # No expansions are asked for here, and "$(...)" drops line ends by itself.
    command = compile_template(template, ["a"], [], "x").render({"inputs.a": Value((text,))})
    result = subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=True, timeout=60)
    expected = text.rstrip("\n") if "$(" in template else text
    assert result.stdout.decode() == expected


@pytest.mark.parametrize(
    "command",
    ["{x}", "{", "}", "{inputs.b}", "{output!r}", "{output:>5}", "{}", "{inputs.}", "{decisions}",
     "{output.x}", "{inputs[a]}", "a\0b"],
)  # fmt: skip
def test_what_cannot_be_read(command: str) -> None:
    with pytest.raises(SpecError, match=r"^Output 'x' in astra\.yaml: .*[.]$"):
        compile_template(command, ["a"], ["d"], "Output 'x' in astra.yaml")


@given(st.text(st.sampled_from("'\"`$(){}\\#; a\n")))
def test_any_text_is_read_or_refused(command: str) -> None:
    try:
        template = compile_template(command, ["a"], [], "Output 'x'")
    except SpecError:
        return
    assert template.render({"output": Value(("o",)), "inputs.a": Value(("a",))}) is not None
