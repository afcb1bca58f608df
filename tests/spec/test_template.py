"""Commands as the shell gets them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

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


VALUES = [
    *("plain", "two words", "it's", 'a"b', "$HOME", "a`b", "a;b", "a\\b", "\\", "a*", "#x", "}"),
    *(
        "x\ny",
        "$(echo no)",
        "`echo no`",
        "\\$HOME",
        "'\"`$\\",
        "a}b",
        "-f",
        "x=y",
        "if",
        "a,b",
        "EOF",
    ),
    *("~", "!", "a)b", "(", "\ta", "\\`", "7", "a.c"),
]
# Printed between < and >, for a trailing line end is lost in a substitution.
P = "printf '<%s>' "
PLACES = {
    "bare": P + "{inputs.a}",
    "double": P + '"{inputs.a}"',
    "single": P + "'{inputs.a}'",
    "ansi": P + "$'{inputs.a}'",
    "partly": P + "''{inputs.a}\"\"",
    "backticks": "x=`" + P + '{inputs.a}`; echo -n "$x"',
    "quoted backticks": 'echo -n "`' + P + '{inputs.a}`"',
    "quotes in backticks": "x=`" + P + "'{inputs.a}'`; echo -n \"$x\"",
    "double in backticks": 'x=`' + P + '"{inputs.a}"`; echo -n "$x"',
    "double in quoted backticks": 'x="`' + P + '"{inputs.a}"`"; echo -n "$x"',
    "backticks in a substitution": 'x=$(echo "`' + P + '{inputs.a}`"); echo -n "$x"',
    "backticks in a document": "cat <<A | tr -d '\\n'\n`" + P + "{inputs.a}`\nA",
    "nested backticks": "x=`echo \\`" + P + "{inputs.a}\\``; echo -n $x",
    "escaped quote in backticks": "x=`echo \\\\' >&2; " + P + "{inputs.a}`; echo -n \"$x\"",
    "substitution": "x=$(" + P + '{inputs.a}); echo -n "$x"',
    "quoted substitution": 'echo -n "$(' + P + '{inputs.a})"',
    "double in substitution": 'echo -n "$(' + P + '"{inputs.a}")"',
    "case in a substitution": 'echo -n "$(case x in x) ' + P + '{inputs.a};; esac)"',
    "case with parentheses": 'echo -n "$(case x in (x) ' + P + '{inputs.a};; (y) ;; esac; :)"',
    "after a case": 'echo -n "$(case x in x) ;; esac)<{inputs.a}>"',
    "comment in a substitution": 'echo -n "$(# it is ) not\n' + P + '{inputs.a})"',
    "process substitution": "cat <(" + P + "{inputs.a})",
    "document": "cat <<EOF | tr -d '\\n'\n<{inputs.a}>\nEOF",
    "line of a document": "echo -n \"<$(cat <<EOF\n{inputs.a}\nEOF\n)>\"",
    "verbatim": "cat <<'EOF' | tr -d '\\n'\n<{inputs.a}>\nEOF",
    "partly quoted end": "cat <<E'O'F | tr -d '\\n'\n<{inputs.a}>\nEOF",
    "indented": "cat <<-EOF | tr -d '\\n'\n\t<{inputs.a}>\n\tEOF",
    "endless document": "cat <<EOF | tr -d '\\n' 2>&-\n<{inputs.a}>\n",
    "end of a document": "cat <<{inputs.a}\nx\nplain\n",
    "comment": P + "x >&2 # {inputs.a}\n",
    "comment in backticks": "x=`" + P + "x # {inputs.a}`; echo -n '' $x >&2",
    "arithmetic": "echo -n \"<$(( {inputs.a} ))>\"",
    "arithmetic command": "(( x = {inputs.a} )); echo -n \"<$x>\"",
    "quoted in arithmetic": 'echo -n "<$(( "{inputs.a}" + (0) ))>"',
    "after arithmetic": "((x = 1 << 2))\n" + P + "{inputs.a}\nx",
    "old arithmetic": 'echo -n "<$[{inputs.a}]>"',
    "test": 'x=plain; [[ {inputs.a} == {inputs.a} ]] && ' + P + "{inputs.a}",
    "matched": "[[ abc =~ ^{inputs.a}$ ]] && echo wrong; " + P + "{inputs.a}",
    "default": 'echo -n "<${{x:-{inputs.a}}}>"',
    "bare default": "echo -n <(:) >&2; x=${{x:-{inputs.a}}}; " + P + '"$x"',
    "quoted default": 'echo -n "<${{x:-"{inputs.a}"}}>"',
    "removed": "x=1{inputs.a}; echo -n \"<${{x#1}}>\"",
    "removed end": "x=zz.plain; x=${{x%.{inputs.a}}}; " + P + "{inputs.a}",
    "braces": "f() {{ " + P + '"$1"; }}; f x{{{inputs.a},no}} | sed s/x//',
    "after a name": 'n=x; x=$n{inputs.a}; ' + P + '"${{x#x}}"',
    "quoted after a name": 'n=x; x="$n{inputs.a}"; ' + P + '"${{x#x}}"',
    "document after a name": "n=; cat <<EOF | tr -d '\\n'\n<$n{inputs.a}>\nEOF",
    "after a dollar": P + "${inputs.a}",
    "quoted after a dollar": P + '"${inputs.a}"',
    "after a backslash": P + "\\{inputs.a}",
    "quoted after a backslash": "x=\"\\{inputs.a}\"; " + P + '"${{x#?}}"',
    "array": 'x=({inputs.a}); ' + P + '"${{x[@]}}"',
    "here-string": "cat <<<{inputs.a} | tr -d '\\n' | sed 's/.*/<&>/'",
    "case": "case {inputs.a} in {inputs.a}) " + P + "{inputs.a};; esac",
    "command": "command_not_found_handle() {{ " + P + '"$1"; }}; {inputs.a}',
}  # fmt: skip
UNSEEN = {"comment", "comment in backticks"}


@pytest.mark.parametrize("name", PLACES)
def test_a_value_arrives_as_it_is_or_is_refused(name: str, tmp_path: Path) -> None:
    scripts, expected = [], []
    for text in VALUES:
        try:
            template = compile_template(PLACES[name], ["a"], [], "Output 'x'")
            command = template.render({"inputs.a": Value((text,))})
            written = template.render_as_written({"inputs.a": Value((text,))})
        except SpecError as error:
            assert re.fullmatch(r"Output 'x': the value .* cannot stand [^\n]*\.", str(error))
            continue
        assert written == command
        if (name, text) == ("command", "~"):
            continue  # A directory that is executed has a message of its own.
        scripts.append(command)
        lost = "\n" in text and "tr -d" in command
        expected.append(
            "" if name in UNSEEN else f"<{text.replace(chr(10), '') if lost else text}>"
        )
    printed = []
    for command in scripts:
        ran = subprocess.run(
            ["bash", "-c", command], capture_output=True, cwd=tmp_path, timeout=60, check=False
        )
        printed.append(ran.stdout.decode())
    if name in UNSEEN:
        assert all(text in ("", "<x>") for text in printed)
    else:
        assert dict(zip(scripts, printed, strict=True)) == dict(zip(scripts, expected, strict=True))
