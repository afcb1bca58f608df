"""Every mistake in a spec is one sentence: which file, where in it, what to do."""

from __future__ import annotations

import os
import re

import pytest

from lightcone.errors import SpecError
from tests.projects import Project

OUT = "outputs: [{id: x, recipe: {command: 'touch {output}'}}]"
CUT = "decisions: {cut: {default: a, options: {a: {}, b: {}}}}"
USES_CUT = "outputs: [{id: x, decisions: [cut], recipe: {command: '{decisions.cut} > {output}'}}]"


def recipe(command: str, rest: str = "") -> str:
    output = f"{{id: x, recipe: {{command: {command!r}}}{rest}}}"
    return f"inputs: [{{id: raw, source: r}}]\noutputs: [{output}]"


# name: the spec, its universes, and the whole sentence
BAD: dict[str, tuple[str, dict[str, str], str]] = {
    "empty": (
        "",
        {},
        "astra.yaml is empty: declare what it makes under 'outputs'.",
    ),
    "only a comment": (
        "# nothing yet\n",
        {},
        "astra.yaml is empty: declare what it makes under 'outputs'.",
    ),
    "a list": (
        "- a\n- b\n",
        {},
        "astra.yaml must be a mapping with 'inputs', 'outputs' and 'decisions'.",
    ),
    "text": (
        "just text",
        {},
        "astra.yaml must be a mapping with 'inputs', 'outputs' and 'decisions'.",
    ),
    "syntax": (
        "outputs:\n  - id: x\n   recipe: y\n",
        {},
        "astra.yaml is not valid YAML: did not find expected '-' indicator on line 3, column 4.",
    ),
    "unbalanced": (
        "outputs: [{id: x\n",
        {},
        "astra.yaml is not valid YAML: did not find expected ',' or '}' on line 2, column 1.",
    ),
    "tab": (
        "outputs:\n\t- id: x\n",
        {},
        "astra.yaml is not valid YAML: found character that cannot start any token on line 2, "
        "column 1.",
    ),
    "tag": (
        "outputs: !secret [x]",
        {},
        "astra.yaml is not valid YAML: could not determine a constructor for the tag '!secret' on "
        "line 1, column 10.",
    ),
    "two documents": (
        f"{OUT}\n---\n{OUT}\n",
        {},
        "astra.yaml is not valid YAML: but found another document on line 2, column 1.",
    ),
    "twice the outputs": (
        f"{OUT}\n{OUT}\n",
        {},
        "astra.yaml has 'outputs' twice in one place, again on line 2: merge the two.",
    ),
    "outputs not a list": (
        "outputs: {x: {recipe: {command: y}}}",
        {},
        "'outputs' in astra.yaml must be a list of entries, each with an 'id'.",
    ),
    "inputs not a list": (
        "inputs: raw.csv",
        {},
        "'inputs' in astra.yaml must be a list of entries, each with an 'id'.",
    ),
    "an output without id": (
        "outputs: [{type: data}]",
        {},
        "Entry 1 of 'outputs' in astra.yaml has no 'id': write it as '- id: a_name'.",
    ),
    "an output that is text": (
        "outputs: [x]",
        {},
        "Entry 1 of 'outputs' in astra.yaml has no 'id': write it as '- id: a_name'.",
    ),
    "duplicate output": (
        "outputs: [{id: x}, {id: y}, {id: x}]",
        {},
        "'outputs' in astra.yaml has the id 'x' twice: rename one of them.",
    ),
    "duplicate input": (
        "inputs: [{id: x}, {id: x}]",
        {},
        "'inputs' in astra.yaml has the id 'x' twice: rename one of them.",
    ),
    "duplicate decision": (
        "decisions:\n  cut: {options: {a: {}}}\n  cut: {options: {b: {}}}\n",
        {},
        "astra.yaml has 'cut' twice in one place, again on line 3: merge the two.",
    ),
    "duplicate option": (
        "decisions:\n  cut:\n    options:\n      a: {}\n      a: {}\n",
        {},
        "astra.yaml has 'a' twice in one place, again on line 5: merge the two.",
    ),
    "id with a slash": (
        "outputs: [{id: ../x, recipe: {command: y}}]",
        {},
        "Output id '../x' in astra.yaml cannot be used: take letters, digits and '_'.",
    ),
    "id with a dot": (
        "outputs: [{id: a.b, recipe: {command: y}}]",
        {},
        "Output id 'a.b' in astra.yaml cannot be used: take letters, digits and '_'.",
    ),
    "sub-analysis id with a slash": (
        "analyses: {a/b: {outputs: []}}",
        {},
        "Sub-analysis id 'a/b' in astra.yaml cannot be used: take letters, digits and '_'.",
    ),
    "decision id with a dot": (
        "decisions: {a.b: {}}",
        {},
        "Decision id 'a.b' in astra.yaml cannot be used: take letters, digits and '_'.",
    ),
    "recipe not a mapping": (
        "outputs: [{id: x, recipe: make it}]",
        {},
        "Output 'x' in astra.yaml: 'recipe' must be a mapping with a 'command'.",
    ),
    "command a list": (
        "outputs: [{id: x, recipe: {command: [python, x.py]}}]",
        {},
        "Output 'x' in astra.yaml: the recipe: 'command' must be text.",
    ),
    "inputs of an output not a list": (
        "outputs: [{id: x, inputs: raw}]",
        {},
        "Output 'x' in astra.yaml: 'inputs' must be a list of ids, as in 'inputs: [a, b]'.",
    ),
    "decisions a list": (
        "decisions: [cut]",
        {},
        "'decisions' in astra.yaml must be a mapping from ids to their definitions.",
    ),
    "options a list": (
        "decisions: {cut: {options: [a, b]}}",
        {},
        "Decision 'cut' in astra.yaml: 'options' must be a mapping from option ids to their "
        "labels.",
    ),
    "a decision that is text": (
        "decisions: {cut: strict}",
        {},
        "'cut' under 'decisions' in astra.yaml must be a mapping.",
    ),
    "a condition that is a mapping": (
        "outputs: [{id: x, when: {cut: a}}]",
        {},
        "Output 'x' in astra.yaml: 'when' must be a condition 'decision.option' or a list of such.",
    ),
    "unknown input": (
        recipe("cat {inputs.rwa}", ", inputs: [rwa]"),
        {},
        "Output 'x' in astra.yaml: its input 'rwa' is neither an input nor an output: did you "
        "mean 'raw'?",
    ),
    "input without source": (
        "inputs: [{id: idea}]\n"
        "outputs: [{id: x, inputs: [idea], recipe: {command: 'cat {inputs.idea}'}}]",
        {},
        "Output 'x' in astra.yaml: its input 'idea' has no 'source': give it one.",
    ),
    "unknown decision of an output": (
        "outputs: [{id: x, decisions: [ctu], recipe: {command: y}}]\n" + CUT,
        {},
        "Output 'x' in astra.yaml lists a decision 'ctu', which is not declared: did you mean "
        "'cut'?",
    ),
    "undeclared input placeholder": (
        recipe("cat {inputs.raw}"),
        {},
        "Output 'x' in astra.yaml: command placeholder '{inputs.raw}' references undeclared input "
        "'raw' (add it to Output.inputs).",
    ),
    "unknown placeholder": (
        recipe("cat {raw}"),
        {},
        "Output 'x' in astra.yaml: unknown command placeholder '{raw}' (use {inputs}, "
        "{inputs.<id>}, {decisions.<id>}, or {output}); braces that the shell is to see are "
        "written {{ and }}.",
    ),
    "single brace": (
        recipe("awk '{' > {output}"),
        {},
        "Output 'x' in astra.yaml: unexpected '{' in field name; braces that the shell is to see "
        "are written {{ and }}.",
    ),
    "closing brace": (
        recipe("echo } > {output}"),
        {},
        "Output 'x' in astra.yaml: Single '}' encountered in format string; braces that the shell "
        "is to see are written {{ and }}.",
    ),
    "format specification": (
        recipe("echo {output:10}"),
        {},
        "Output 'x' in astra.yaml: command placeholder '{output}' takes no format spec.",
    ),
    "a NUL": (
        'outputs: [{id: x, decisions: [d], recipe: {command: "echo {decisions.d}"}}]\n'
        'decisions: {d: {default: "\\0", options: {"\\0": {}}}}',
        {},
        "Output 'x' in astra.yaml: the command has a NUL character: remove it.",
    ),
    "cycle": (
        "outputs:\n"
        "- {id: a, inputs: [c], recipe: {command: y}}\n"
        "- {id: b, inputs: [a], recipe: {command: y}}\n"
        "- {id: c, inputs: [b], recipe: {command: y}}\n",
        {},
        "Outputs need each other in a circle, a → b → c → a: remove one of these from the "
        "'inputs' of another in astra.yaml.",
    ),
    "an output that needs itself": (
        "outputs: [{id: a, inputs: [a], recipe: {command: y}}]",
        {},
        "Output a in astra.yaml needs itself: remove it from its own 'inputs', or give the output "
        "or the input that is meant another id.",
    ),
    "an output that takes an input of its own name": (
        "inputs: [{id: a, source: a.csv}]\noutputs: [{id: a, inputs: [a], recipe: {command: y}}]",
        {},
        "Output 'a' in astra.yaml has 'a' under 'inputs', which names both an input and an output "
        "there: rename one of the two.",
    ),
    "an id of both an input and an output": (
        "analyses:\n  part:\n    inputs: [{id: a, from: ../a}]\n"
        "    outputs: [{id: b, inputs: [a]}, {id: a, from: deep.a}]",
        {},
        "Output 'b' in astra.yaml, analyses.part has 'a' under 'inputs', which names both an input "
        "and an output there: rename one of the two.",
    ),
    "an input named like an output of a sub-analysis": (
        "inputs: [{id: part.x, source: a.csv}]\n"
        "outputs: [{id: a, inputs: [part.x], recipe: {command: y}}]",
        {},
        "Input id 'part.x' in astra.yaml cannot be used: take letters, digits and '_'.",
    ),
    "condition on an unknown decision": (
        f"outputs: [{{id: x, when: ctu.a, recipe: {{command: y}}}}]\n{CUT}",
        {},
        "Output 'x' in astra.yaml has the condition 'ctu.a', but there is no decision 'ctu': did "
        "you mean 'cut'?",
    ),
    "condition on an unknown option": (
        f"outputs: [{{id: x, when: ~cut.c, recipe: {{command: y}}}}]\n{CUT}",
        {},
        "Output 'x' in astra.yaml has the condition '~cut.c', but decision 'cut' has no option "
        "'c': use one of a, b.",
    ),
    "condition that is none": (
        f"outputs: [{{id: x, when: cut=a, recipe: {{command: y}}}}]\n{CUT}",
        {},
        "Output 'x' in astra.yaml has the condition 'cut=a': write it as 'decision.option', with "
        "'~' before it for the opposite.",
    ),
    "no default": (
        f"decisions: {{cut: {{options: {{a: {{}}, b: {{}}}}}}}}\n{USES_CUT}",
        {},
        "Decision 'cut' in astra.yaml has no default: give it one, or choose in "
        "universes/baseline.yaml.",
    ),
    "default that is no option": (
        f"decisions: {{cut: {{default: c, options: {{a: {{}}, b: {{}}}}}}}}\n{USES_CUT}",
        {},
        "The default universe chooses 'c' for decision 'cut': choose one of a, b.",
    ),
    "empty universe": (
        OUT,
        {"u": ""},
        "universes/u.yaml is empty: write the options it chooses under 'decisions'.",
    ),
    "universe that is a list": (
        OUT,
        {"u": "[a]"},
        "universes/u.yaml must be a mapping with 'decisions'.",
    ),
    "universe that is broken": (
        OUT,
        {"u": "decisions: {\n"},
        "universes/u.yaml is not valid YAML: did not find expected node content on line 2, "
        "column 1.",
    ),
    "universe with an unknown decision": (
        f"{CUT}\n{USES_CUT}",
        {"u": "decisions: {cut: a, ctu: b}"},
        "universes/u.yaml chooses for a decision 'ctu' that is not in astra.yaml: did you mean "
        "'cut'?",
    ),
    "universe with an unknown option": (
        f"{CUT}\n{USES_CUT}",
        {"u": "decisions: {cut: strict}"},
        "universes/u.yaml chooses 'strict' for decision 'cut': choose one of a, b.",
    ),
    "universe without a choice": (
        f"{CUT}\n{USES_CUT}",
        {"u": "id: u"},
        "universes/u.yaml makes no choice for decision 'cut': add it to its decisions, one of a, "
        "b.",
    ),
    "universe with no option": (
        f"{CUT}\n{USES_CUT}",
        {"u": "decisions: {cut: }"},
        "Decision 'cut' in universes/u.yaml must be given the name of one option.",
    ),
    "universe with decisions that are a list": (
        OUT,
        {"u": "decisions: [a]"},
        "'decisions' in universes/u.yaml must be a mapping, as in 'decisions: {a: b}'.",
    ),
    "universe with an unknown sub-analysis": (
        f"{OUT}\nanalyses: {{part: {{}}}}",
        {"u": "analyses: {prat: {}}"},
        "universes/u.yaml chooses for a sub-analysis 'prat' that is not in astra.yaml: did you "
        "mean 'part'?",
    ),
    "universe without a choice for a sub-analysis": (
        f"analyses: {{part: {{{CUT}, {USES_CUT}}}}}".replace("\n", ""),
        {"u": "id: u"},
        "universes/u.yaml makes no choice for decision 'cut' of 'part': add it to its decisions, "
        "one of a, b.",
    ),
    "universe of an inline sub-analysis": (
        "analyses: {part: {outputs: []}}",
        {"u": "analyses: {part: {universe: fast}}"},
        "universes/u.yaml chooses universe 'fast' of 'part', which has no universes of its own: "
        "list its decisions instead.",
    ),
    "cpus": (
        "outputs: [{id: x, recipe: {command: y, resources: {cpus: lots}}}]",
        {},
        "Output 'x' in astra.yaml: 'cpus' under 'resources': 'lots' is not a number of processors "
        "(write 1, 4 or 0.5).",
    ),
    "no cpus": (
        "outputs: [{id: x, recipe: {command: y, resources: {cpus: 0}}}]",
        {},
        "Output 'x' in astra.yaml: 'cpus' under 'resources': '0' is not a number of processors "
        "(write 1, 4 or 0.5).",
    ),
    "memory": (
        "outputs: [{id: x, recipe: {command: y, resources: {memory: 16 Gigs}}}]",
        {},
        "Output 'x' in astra.yaml: 'memory' under 'resources': '16 Gigs' is not a size (write "
        "16Gi, 500M or a number of bytes).",
    ),
    "gpus": (
        "outputs: [{id: x, recipe: {command: y, resources: {gpus: 0.5}}}]",
        {},
        "Output 'x' in astra.yaml: 'gpus' under 'resources': '0.5' is not a number of devices "
        "(write 1 or 2).",
    ),
    "time limit": (
        "outputs: [{id: x, recipe: {command: y, resources: {time_limit: soon}}}]",
        {},
        "Output 'x' in astra.yaml: 'time_limit' under 'resources': 'soon' is not a duration "
        "(write 90, 30m or 1h30m).",
    ),
    "no time": (
        "outputs: [{id: x, recipe: {command: y, resources: {time_limit: 0s}}}]",
        {},
        "Output 'x' in astra.yaml: 'time_limit' under 'resources': '0s' leaves no time (write 90, "
        "30m or 1h30m).",
    ),
    "resources that are text": (
        "outputs: [{id: x, recipe: {command: y, resources: many}}]",
        {},
        "Output 'x' in astra.yaml: 'resources' must be a mapping, as in 'resources: {cpus: 2}'.",
    ),
    "format with a slash": (
        "outputs: [{id: x, format: a/b, recipe: {command: y}}]",
        {},
        "Output 'x' in astra.yaml has the format 'a/b', which cannot end a file's name: write one "
        "such as 'csv'.",
    ),
    "sub-analysis that is not there": (
        "analyses: {part: {path: parts/one}}",
        {},
        "Sub-analysis 'part' in astra.yaml lies in 'parts/one', where there is no astra.yaml: "
        "correct the path.",
    ),
    "sub-analysis that is itself": (
        "analyses: {part: {path: ../project}}",
        {},
        "Sub-analysis 'part' in astra.yaml contains itself by its path '../project': correct the "
        "path.",
    ),
    "sub-analysis with path and content": (
        "analyses: {part: {path: part, outputs: [{id: x}]}}",
        {},
        "Sub-analysis 'part' in astra.yaml has both 'path' and 'outputs': move its content to the "
        "file in that path.",
    ),
    "input from nowhere": (
        "analyses:\n  part:\n    inputs: [{id: raw, from: ../nothing}]\n"
        "    outputs: [{id: x, inputs: [raw], recipe: {command: 'cat {inputs.raw}'}}]\n",
        {},
        "Output 'x' in astra.yaml: its input 'raw' leads nowhere by its 'from' (Input.from "
        "'../nothing' points to non-existent ancestor input 'nothing'): correct that, or give it a "
        "'source' instead.",
    ),
    "input from an output that is not there": (
        "analyses:\n  part:\n    inputs: [{id: raw, from: ../other.nothing}]\n"
        "    outputs: [{id: x, inputs: [raw], recipe: {command: 'cat {inputs.raw}'}}]\n"
        "  other: {}\n",
        {},
        "Output 'x' in astra.yaml: its input 'raw' is to be made by 'other.nothing', which is not "
        "declared (Input.from '../other.nothing': output 'nothing' not found in target "
        "sub-analysis): correct the name or declare it.",
    ),
    "an output's key nearly right": (
        "outputs: [{id: x, input: [raw], recipe: {command: y}}]",
        {},
        "Output 'x' in astra.yaml has an unknown key 'input': did you mean 'inputs'?",
    ),
    "an output's key misspelt": (
        "outputs: [{id: x, imputs: [raw], recipe: {command: y}}]",
        {},
        "Output 'x' in astra.yaml has an unknown key 'imputs': did you mean 'inputs'?",
    ),
    "an output's key under another name": (
        "outputs: [{id: x, depends_on: [raw], recipe: {command: y}}]",
        {},
        "Output 'x' in astra.yaml has an unknown key 'depends_on': did you mean 'inputs'?",
    ),
    "the setting of an output as a recipe's key": (
        "outputs: [{id: x, recipe: {command: y, resume: true}}]",
        {},
        "Output 'x' in astra.yaml: the recipe has an unknown key 'resume': it is a setting, under "
        "[outputs.NAME] in lightcone.toml.",
    ),
    "a key of an analysis with two typos": (
        "ouput: [{id: x, recipe: {command: y}}]",
        {},
        "astra.yaml has an unknown key 'ouput': did you mean 'outputs'?",
    ),
    "an image of everything": (
        f"{OUT}\nimage: box",
        {},
        "astra.yaml has an unknown key 'image': did you mean 'container'?",
    ),
    "a setting as an output's key": (
        "outputs: [{id: x, depend_on: [a.cfg], recipe: {command: y}}]",
        {},
        "Output 'x' in astra.yaml has an unknown key 'depend_on': it is a setting, under [results] "
        "in lightcone.toml.",
    ),
    "inputs of a recipe": (
        "outputs: [{id: x, recipe: {command: y, inputs: [raw]}}]",
        {},
        "Output 'x' in astra.yaml: the recipe has an unknown key 'inputs': it belongs to an "
        "output, beside its 'recipe'.",
    ),
    "no command": (
        "outputs: [{id: x, recipe: {comand: y}}]",
        {},
        "Output 'x' in astra.yaml: the recipe has an unknown key 'comand': did you mean 'command'?",
    ),
    "a recipe without a command": (
        "outputs: [{id: x, recipe: {container: box}}]",
        {},
        "Output 'x' in astra.yaml: the recipe has no 'command': add it, or remove the recipe.",
    ),
    "a recipe of prose": (
        "outputs: [{id: x, recipe: {description: by hand}}]",
        {},
        "Output 'x' in astra.yaml: the recipe has no 'command': add it, or remove the recipe.",
    ),
    "a recipe of nothing": (
        "outputs: [{id: x, recipe: {}}]",
        {},
        "Output 'x' in astra.yaml: the recipe has no 'command': add it, or remove the recipe.",
    ),
    **{
        f"a command that is {name}": (
            f"outputs: [{{id: x, recipe: {{command: {text}}}}}]",
            {},
            "Output 'x' in astra.yaml: the recipe has an empty 'command': write the shell command "
            "that makes the output, or remove the recipe.",
        )
        for name, text in {
            "empty": '""',
            "null": "null",
            "blank": '"  \\n "',
            "a comment": '"# later\\n  # on"',
        }.items()
    },
    "a command that is a number": (
        "outputs: [{id: x, recipe: {command: 5}}]",
        {},
        "Output 'x' in astra.yaml: the recipe: 'command' must be a shell command, not 5.",
    ),
    "a default that is no option, of a decision that does not apply": (
        "decisions:\n  cut: {default: a, options: {a: {}, b: {}}}\n"
        "  how: {when: cut.b, default: fst, options: {fast: {}, slow: {}}}\n"
        "outputs: [{id: x, decisions: [how], recipe: {command: 'echo {decisions.how}'}}]",
        {"u": "decisions: {cut: a}"},
        "Decision 'how' in astra.yaml has the default 'fst': did you mean 'fast'?",
    ),
    "a recipe's key that resembles none": (
        "outputs: [{id: x, recipe: {command: y, workdir: src}}]",
        {},
        "Output 'x' in astra.yaml: the recipe has an unknown key 'workdir': it has 'command', "
        "'resources' and 'container'.",
    ),
    "resource": (
        "outputs: [{id: x, recipe: {command: y, resource: {cpus: 4}}}]",
        {},
        "Output 'x' in astra.yaml: the recipe has an unknown key 'resource': did you mean "
        "'resources'?",
    ),
    "cpu": (
        "outputs: [{id: x, recipe: {command: y, resources: {cpu: 4}}}]",
        {},
        "Output 'x' in astra.yaml: 'resources' has an unknown key 'cpu': did you mean 'cpus'?",
    ),
    "resources beside the recipe": (
        "outputs: [{id: x, resources: {cpus: 4}, recipe: {command: y}}]",
        {},
        "Output 'x' in astra.yaml has an unknown key 'resources': it belongs under an output's "
        "'recipe'.",
    ),
    "resources of everything": (
        f"{OUT}\nresources: {{cpus: 4}}",
        {},
        "astra.yaml has an unknown key 'resources': it belongs under an output's 'recipe'.",
    ),
    "a key of an input": (
        "inputs: [{id: raw, sorce: a.csv}]",
        {},
        "Input 'raw' in astra.yaml has an unknown key 'sorce': did you mean 'source'?",
    ),
    "a key of an analysis": (
        "ouputs: [{id: x, recipe: {command: y}}]",
        {},
        "astra.yaml has an unknown key 'ouputs': did you mean 'outputs'?",
    ),
    "a key of a sub-analysis": (
        "analyses: {part: {decision: {}}}",
        {},
        "astra.yaml, analyses.part has an unknown key 'decision': did you mean 'decisions'?",
    ),
    "a key of a decision": (
        "decisions: {cut: {defualt: a, options: {a: {}}}}",
        {},
        "Decision 'cut' in astra.yaml has an unknown key 'defualt': did you mean 'default'?",
    ),
    "a key of an option": (
        "decisions: {cut: {options: {a: {exclude: true}}}}",
        {},
        "Decision 'cut' in astra.yaml: option 'a' has an unknown key 'exclude': did you mean "
        "'excluded'?",
    ),
    "a truth value of an option": (
        "decisions: {cut: {options: {a: {excluded: too slow}}}}",
        {},
        "Decision 'cut' in astra.yaml: 'excluded' of option 'a' must be true or false.",
    ),
    "a key of a universe": (
        f"{CUT}\n{USES_CUT}",
        {"u": "decision: {cut: a}"},
        "universes/u.yaml has an unknown key 'decision': did you mean 'decisions'?",
    ),
    "a universe without 'decisions'": (
        f"{CUT}\n{USES_CUT}",
        {"u": "cut: a"},
        "universes/u.yaml has an unknown key 'cut': write the options it chooses under "
        "'decisions'.",
    ),
    "a universe that names another": (
        OUT,
        {"u": "universe: v"},
        "universes/u.yaml has an unknown key 'universe': only one of a sub-analysis can be chosen, "
        "under 'analyses'.",
    ),
    "a universe's sub-analysis that is chosen twice": (
        "analyses: {part: {outputs: []}}",
        {"u": "analyses: {part: {universe: v, decisions: {cut: a}}}"},
        "universes/u.yaml, analyses.part has both 'universe' and 'decisions', of which only the "
        "first would count: remove one of them.",
    ),
    "universes in astra.yaml": (
        f"{OUT}\nuniverses: [{{id: u}}]",
        {},
        "astra.yaml has an unknown key 'universes': a universe is a file: move each to "
        "universes/<name>.yaml.",
    ),
    "an input with two origins": (
        "analyses: {part: {inputs: [{id: raw, from: ../raw, source: raw.csv}]}}",
        {},
        "Input 'raw' in astra.yaml, analyses.part has both 'from' and 'source', of which only the "
        "first would count: remove one of them.",
    ),
    "an output with two origins": (
        "outputs: [{id: x, from: part.x, recipe: {command: y}}]",
        {},
        "Output 'x' in astra.yaml has both 'from' and 'recipe', of which only the first would "
        "count: remove one of them.",
    ),
    "a decision with two origins": (
        "analyses: {part: {decisions: {cut: {from: ../cut, default: a}}}}",
        {},
        "Decision 'cut' in astra.yaml, analyses.part has both 'from' and 'default', of which only "
        "the first would count: remove one of them.",
    ),
    "a sub-analysis with path and container": (
        "analyses: {part: {path: part, container: box}}",
        {},
        "Sub-analysis 'part' in astra.yaml has both 'path' and 'container': move its content to "
        "the file in that path.",
    ),
    "excluded": (
        "decisions: {cut: {options: {a: {excluded: true, excluded_reason: Too slow.}, b: {}}}}\n"
        + USES_CUT,
        {"u": "decisions: {cut: a}"},
        "universes/u.yaml chooses 'a' for decision 'cut', which is excluded (Too slow): choose one "
        "of b.",
    ),
    "excluded by default": (
        "decisions: {cut: {default: a, options: {a: {excluded: on}, b: {}, c: {}}}}\n" + USES_CUT,
        {},
        "The default universe chooses 'a' for decision 'cut', which is excluded: choose one of b, "
        "c.",
    ),
    "incompatible": (
        "decisions:\n  cut: {options: {a: {incompatible_with: [how.x]}, b: {}}}\n"
        "  how: {options: {x: {}, y: {}}}\n" + USES_CUT,
        {"u": "decisions: {cut: a, how: x}"},
        "universes/u.yaml chooses 'a' for decision 'cut', which is incompatible with 'x' for "
        "'how': choose another option for one of the two.",
    ),
    "required": (
        "decisions:\n  cut: {options: {a: {requires: how.x}, b: {}}}\n"
        "  how: {options: {x: {}, y: {}}}\n" + USES_CUT,
        {"u": "decisions: {cut: a, how: y}"},
        "universes/u.yaml chooses 'a' for decision 'cut', which requires 'x' for 'how', not 'y': "
        "choose another option for one of the two.",
    ),
    "a constraint on an unknown decision": (
        "decisions: {cut: {options: {a: {incompatible_with: [ctu.b]}, b: {}}}}\n" + USES_CUT,
        {"u": "decisions: {cut: a}"},
        "Option 'a' of decision 'cut' in astra.yaml has under 'incompatible_with' 'ctu.b', but "
        "there is no decision 'ctu': did you mean 'cut'?",
    ),
    "a constraint that is none": (
        "decisions: {cut: {options: {a: {requires: how}, b: {}}}, how: {options: {x: {}}}}",
        {},
        "Option 'a' of decision 'cut' in astra.yaml has under 'requires' 'how': write it as "
        "'decision.option'.",
    ),
    "a condition on itself": (
        "decisions: {cut: {when: cut.a, options: {a: {}, b: {}}}}",
        {},
        "Decision 'cut' in astra.yaml has the condition 'cut.a', which is about itself: remove it.",
    ),
    "a choice that another one replaces": (
        f"{CUT}\nanalyses: {{part: {{decisions: {{cut: {{from: ../cut}}}}, {USES_CUT}}}}}",
        {"u": "decisions: {cut: a}\nanalyses: {part: {decisions: {cut: b}}}"},
        "universes/u.yaml chooses 'b' for decision 'cut' of 'part', which is 'a' by its 'from: "
        "../cut': remove the choice.",
    ),
    "decision from nowhere": (
        "analyses:\n  part:\n    decisions: {cut: {from: ../ctu}}\n"
        "    outputs: [{id: x, decisions: [cut], recipe: {command: 'x {decisions.cut}'}}]\n",
        {},
        "Decision 'cut' in astra.yaml has no option in universe 'baseline', as its 'from: ../ctu' "
        "leads to no decision (Decision.from '../ctu' points to non-existent ancestor decision "
        "'ctu'): correct it.",
    ),
}


# a key of an output: what is said of it
KEYS = {
    "imput": "did you mean 'inputs'?",
    "inptus": "did you mean 'inputs'?",
    "in-puts": "did you mean 'inputs'?",
    "Input": "did you mean 'inputs'?",
    "depends": "did you mean 'inputs'?",
    "dependsOn": "did you mean 'inputs'?",
    "deps": "did you mean 'inputs'?",
    "needs": "did you mean 'inputs'?",
    "cmd": "did you mean 'command', under 'recipe'?",
    "script": "did you mean 'command', under 'recipe'?",
    "shell": "did you mean 'command', under 'recipe'?",
    "run": "did you mean 'command', under 'recipe'?",
    "scripts": "did you mean 'command', under 'recipe'?",
    "recepie": "did you mean 'recipe'?",
    "recip": "did you mean 'recipe'?",
    "receipe": "did you mean 'recipe'?",
    "recipes": "did you mean 'recipe'?",
    "commnad": "it belongs under an output's 'recipe'.",
    "contaner": "it belongs under an output's 'recipe'.",
    "resource": "it belongs under an output's 'recipe'.",
    "image": "did you mean 'container', under 'recipe'?",
    "env": "a recipe has the caller's environment; set other variables in its 'command'.",
    "observe": "it is a setting, under [outputs.NAME] in lightcone.toml.",
    "resume": "it is a setting, under [outputs.NAME] in lightcone.toml.",
    "resumes": "it is a setting, under [outputs.NAME] in lightcone.toml.",
    "timeout": "did you mean 'time_limit', under 'resources' of a recipe?",
    "ouput": "lc decides the path, which a command has as {output}.",
    "if": "did you mean 'when'?",
    "extension": "did you mean 'format'?",
}


@pytest.mark.parametrize("rest", ["", ", recipe: {command: y}"], ids=["alone", "with recipe"])
@pytest.mark.parametrize("key", KEYS)
def test_keys_that_seem_to_decide_are_refused(key: str, rest: str, project: Project) -> None:
    project.spec(f"outputs: [{{id: x, {key}: a{rest}}}]")
    with pytest.raises(SpecError) as caught:
        project.outputs()
    sentence = f"Output 'x' in astra.yaml has an unknown key '{key}': {KEYS[key]}"
    assert str(caught.value) == sentence


@pytest.mark.parametrize("name", BAD)
def test_one_sentence(name: str, project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    spec, universes, sentence = BAD[name]
    project.spec(spec, universes)
    with pytest.raises(SpecError) as caught:
        project.outputs()
    assert str(caught.value) == sentence
    assert caught.value.exit_code == 2
    assert capfd.readouterr() == ("", "")


def test_an_id_may_be_used_again_where_it_is_not_ambiguous(project: Project) -> None:
    """In a sub-analysis, for what no output lists, and for ids of another kind."""
    project.spec(
        """
inputs: [{id: a, source: a.csv}]
decisions: {a: {default: x, options: {x: {}}}}
outputs:
  - {id: a, from: part.a}
  - {id: b, decisions: [a], recipe: {command: "echo {decisions.a} > {output}"}}
  - {id: none}
  - {id: null_recipe, recipe: null}
analyses:
  part:
    inputs: [{id: raw, from: ../a}]
    outputs: [{id: a, inputs: [raw], recipe: {command: "cp {inputs.raw} {output}"}}]
  other:
    inputs: [{id: b, from: ../a}]
    outputs: [{id: a, inputs: [b], recipe: {command: "cp {inputs.b} {output}"}}]
"""
    )
    outputs = {each.id: each for each in project.outputs()}
    assert list(outputs) == ["b", "part.a", "other.a"]
    assert outputs["part.a"].command == "cp a.csv results/baseline/part.a"


def test_mistakes_in_a_sub_analysis_name_its_file(project: Project) -> None:
    project.spec("analyses: {part: {path: parts/one}}", {"u": "analyses: {part: {universe: v}}"})
    project.write("parts/one/astra.yaml", "outputs: {}")
    with pytest.raises(SpecError, match=r"^'outputs' in parts/one/astra\.yaml must be a list"):
        project.outputs()
    project.write("parts/one/astra.yaml", f"{CUT}\n{USES_CUT}")
    with pytest.raises(SpecError, match="of 'part', where there is no such file: choose one of b"):
        project.outputs()
    project.write("parts/one/universes/v.yaml", "decisions: {cut: c}")
    with pytest.raises(
        SpecError, match=r"^parts/one/universes/v\.yaml chooses 'c' for decision 'cut' of 'part'"
    ):
        project.outputs()
    project.write("parts/one/universes/v.yaml", "decisions: {cut: a}")
    project.write("parts/one/astra.yaml", f"{CUT}\n{USES_CUT}".replace("{output}", "{outptu}"))
    with pytest.raises(SpecError, match=r"^Output 'x' in parts/one/astra\.yaml: unknown command"):
        project.outputs()


def test_two_outputs_with_one_path(project: Project) -> None:
    project.spec("analyses: {north: {path: part}, south: {path: part}}")
    project.write("part/astra.yaml", OUT)
    with pytest.raises(SpecError) as caught:
        project.outputs()
    assert str(caught.value) == (
        "Outputs 'north.x' and 'south.x' would both lie at part/results/<universe>/x: rename one, "
        "or give the sub-analyses directories of their own."
    )


def test_files_that_cannot_be_read(project: Project) -> None:
    (project.root / "astra.yaml").mkdir()
    with pytest.raises(SpecError, match=r"^astra\.yaml cannot be read \(Is a directory\): "):
        project.outputs()
    (project.root / "astra.yaml").rmdir()
    project.write("astra.yaml", OUT)
    (project.root / "astra.yaml").write_bytes(b"outputs: \xff\xfe\n")
    with pytest.raises(SpecError, match="not valid YAML: invalid leading UTF-8 octet"):
        project.outputs()
    project.write("astra.yaml", OUT)


def test_links_that_lead_nowhere(project: Project) -> None:
    def sentence() -> str:
        with pytest.raises(SpecError) as caught:
            project.outputs()
        return str(caught.value)

    advice = "which does not exist: restore that, or remove the link."
    root = project.spec("analyses: {part: {path: part}}").root
    os.symlink("gone", root / "part")
    label = "Sub-analysis 'part' in astra.yaml"
    assert sentence() == f"{label}: part is a link to 'gone', {advice}"
    (root / "part").unlink()
    (root / "part").mkdir()
    os.symlink("gone", root / "part/astra.yaml")
    assert sentence() == f"{label}: part/astra.yaml is a link to 'gone', {advice}"
    (root / "part/astra.yaml").unlink()
    project.write("part/astra.yaml", f"{CUT}\n{USES_CUT}")
    assert len(project.outputs()) == 1
    os.symlink("gone", root / "universes")
    assert sentence() == f"{root}/universes is a link to 'gone', {advice}"
    (root / "universes").unlink()
    (root / "universes").mkdir()
    os.symlink("../gone.yaml", root / "universes/u.yaml")
    assert sentence() == f"universes/u.yaml is a link to '../gone.yaml', {advice}"
    (root / "universes/u.yaml").unlink()
    project.write("universes/u.yaml", "{}")
    (root / "part/universes").mkdir()
    os.symlink("gone", root / "part/universes/u.yaml")
    assert sentence() == f"part/universes/u.yaml is a link to 'gone', {advice}"
    project.write("universes/u.yaml", "analyses: {part: {universe: u}}")
    assert sentence() == f"part/universes/u.yaml is a link to 'gone', {advice}"
    (root / "part/universes/u.yaml").unlink()
    os.symlink("u.yaml", root / "part/universes/u.yaml")
    assert sentence().startswith("part/universes/u.yaml cannot be read (Too many levels of")


def test_universes_that_cannot_be_read(project: Project) -> None:
    root = project.spec(f"{CUT}\n{USES_CUT}").root
    project.write("universes", "")
    with pytest.raises(SpecError, match=r"/universes is a file: rename it, and make it a dir"):
        project.outputs()
    (root / "universes").unlink()
    project.write("universes/a\nb.yaml", "decisions: {cut: a}")
    with pytest.raises(SpecError, match=r"a file 'a\\nb.yaml', whose name cannot be printed: re"):
        project.outputs()
    (root / "universes/a\nb.yaml").unlink()
    (root / "universes/u.yaml").mkdir(parents=True)
    with pytest.raises(SpecError, match=r"^universes/u\.yaml cannot be read \(Is a directory\): "):
        project.outputs()


def test_universes_may_have_any_name_that_can_be_read(project: Project) -> None:
    names = ["My Run", "-u", "UPPER", "naïve", "a.b"]
    project.spec(f"{CUT}\n{USES_CUT}", dict.fromkeys(names, "decisions: {cut: a}"))
    assert sorted(each.universe for each in project.outputs()) == sorted(names)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 50_000 + "]" * 50_000,
        "- " * 50_000 + "x",
        "? " * 5_000 + "x",
        "\n".join(" " * depth + "a:" for depth in range(2_000)),
        "a: &a [*a]\noutputs: *a",
        "analyses: &a {b: {analyses: *a}}",
    ],
    ids=["flow", "sequences", "keys", "block", "recursive", "recursive analyses"],
)
def test_bottomless_files(project: Project, text: str) -> None:
    project.spec(text)
    with pytest.raises(SpecError, match=r"nested too deeply|not valid YAML|must be a list"):
        project.outputs()


def test_brackets_in_prose_are_not_nesting(project: Project) -> None:
    prose = "\n".join(f"k{i}: 'from [0, 1) to {{'" for i in range(300))
    assert project.spec(f"{prose}\n{OUT}").outputs()


def test_every_sentence_is_one(project: Project) -> None:
    for _, _, sentence in BAD.values():
        assert re.search(r"[.?]$", sentence)
        assert "\n" not in sentence
