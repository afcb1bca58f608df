"""References of a shell text: a command, a shell script or a Makefile.

Every word that may be the path of a file is one, and every part of a word after ``=`` or between
``,`` and ``:``, or after ``@``. Variables that the text itself sets are filled in, and so are
``$PWD``, ``$(pwd)``, the script's own directory and ``~``; what stands in braces is multiplied out.
Of a path that begins with another variable, what follows it is a guess. Words that the text shows
to be written (``>``, ``tee``, the targets of a Makefile) are marked as that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise

from lightcone.state.references import (
    HERE,
    Kind,
    NotFollowed,
    Reference,
    References,
    join,
    parent,
)
from lightcone.state.shell_words import (
    Command,
    Word,
    bare,
    read_commands,
    split_words,
    unquoted,
    written_by,
)

__all__ = ["read_shell"]

_TARGETS = re.compile(r"^(?![\t#])([^=:#\n]+):(?![:=])", re.MULTILINE)

_BRACES = re.compile(r"(?<!\$)\{([^{}\s]*,[^{}\s]*|(\d{1,9})\.\.(\d{1,9}))\}")
_MAGIC = re.compile(r"[*?]|\[[^\]]+\]")

_SELF = r"(?:\$0|\$\{0\}|\$\{?BASH_SOURCE(?:\[0\])?(?::-\$0)?\}?)"
_QUIET = r"(?:\s*(?:&|\d)?>+\s*(?:/dev/null|&\d))*"
_PLAIN = r"[^\s$;|&<>()'\"`]+"
_KNOWN = (
    (re.compile(rf"\$\(\s*(?:readlink\s+-[ef]+|realpath)\s+(?:--\s+)?\"?({_SELF})\"?\s*\)"), r"\1"),
    (re.compile(rf"(?:\$\(|`)\s*dirname\s+(?:--\s+)?\"?{_SELF}\"?\s*(?:\)|`)"), HERE),
    (re.compile(r"\$\{(?:0|BASH_SOURCE(?:\[0\])?)%/\*\}"), HERE),
    (re.compile(r"(?:\$\(|`)\s*pwd(?:\s+-[LP])?\s*(?:\)|`)|\$PWD\b|\$\{PWD\}|\$\(CURDIR\)"), "."),
    (
        re.compile(
            rf"\$\(\s*cd\s+(?:--\s+)?[\"']?({_PLAIN})[\"']?{_QUIET}\s*(?:&&|;)\s*pwd(?:\s+-[LP])?\s*\)"
        ),
        r"\1",
    ),
    (re.compile(rf"\$\(\s*(?:readlink\s+-[ef]+|realpath)\s+[\"']?({_PLAIN})[\"']?\s*\)"), r"\1"),
)
_DIRNAME = re.compile(rf"\$\(\s*dirname\s+(?:--\s+)?[\"']?({_PLAIN})[\"']?\s*\)")
_QUOTED = r"""(?:[^\s;|&()<>'"`\\]+|\\.|'[^']*'|"(?:[^"\\]|\\.)*")"""
_ASSIGNED = re.compile(rf"(?:^|[\s;&|({{])([A-Za-z_]\w*)(\+?)=({_QUOTED}*)(?=[\s;&|)<>]|$)")
_ASSIGNED_IN_MAKE = re.compile(
    r"^(?:export[ ]+)?([\w.-]+)[ \t]*(?:::?|\?|(\+))?=[ \t]*([^\n#]*)", re.MULTILINE
)
_COUNTED = re.compile(
    r"\(\([ \t]*([A-Za-z_]\w*)[ \t]*(?:\+\+|--|[-+*/]?=(?!=))"
    r"|(?:\blet[ \t]+\"?)([A-Za-z_]\w*)|\b([A-Za-z_]\w*)=\$\(\("
)
_LOOP = re.compile(r"\bfor\s+([A-Za-z_]\w*)\s+in\s+([^;\n]+)")
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?::?[-=]([^{}]*))?\})")
_VARIABLE_IN_MAKE = re.compile(r"\$[({]([\w.-]+)()()[)}]")
_UNRESOLVED = re.compile(r"\$(?:\w+|\{[^}]*\}|\([^)]*\)?)|[<>]\(|`")
_EXPANSION = re.compile(r"\$(?:[A-Za-z_]\w*|\{[^}]*\}|\(.*\))|<\(.*\)", re.DOTALL)
_POSITIONAL = re.compile(r"\$(?:[\d@*]|\{[\d@*])")
_COMPUTED = re.compile(r"(?:\$(?:\w+|\{[^}]*\}|\([^)]*\)))?/")
_LIKE_A_PATH = re.compile(r".*(?:/|\.\w{1,8}$)", re.DOTALL)

_FLAGS = "[bBdEiIOPqsSuvx]*"  # of Python; they may stand together: -um
_RUNS_MODULE = re.compile(rf"-{_FLAGS}m(.*)", re.DOTALL)
_ENDS_OPTIONS = re.compile(rf"-{_FLAGS}[cm]|-e")
_MAKE_FLAGS = "[bBdeikLmnpqrRsStvw]*"
_NAMES_MAKEFILE = re.compile(rf"-{_MAKE_FLAGS}f|--(?:file|makefile)")
_NAMES_SNAKEFILE = re.compile(r"-s|--snakefile")
_MOVES = re.compile(rf"(?:-{_MAKE_FLAGS}C|--(?:directory|chdir)(?:=|$))(.*)", re.DOTALL)
_MODULE = re.compile(r"\.?([A-Za-z_][\w.]*)")
_SHELLS = re.compile(r"(?:ba|da|k|z)?sh")
_INTERPRETER = re.compile(r"(?:ba|da|k|z)?sh|python[\d.]*|Rscript|julia|perl|ruby|node")
_BEFORE_PROGRAM = frozenset(
    {"if", "then", "elif", "else", "while", "until", "do", "!", "{", "time", "exec", "command"}
    | {"builtin", "nohup", "export", "env", "local", "declare"}
)
_TAKES_VALUE = {"python": ("-W", "-X"), "sh": ("-o", "-O", "+o", "+O")}
_TAKE_VALUES = {"read": "dnNptui", "mapfile": "dnOsuCc", "readarray": "dnOsuCc"}
_PRINTS = ("echo", "printf", "test", "[", "[[", "export", "return", "exit", "shift", "trap", "set")
_NO_FILE = re.compile(
    r"\$\{?(?:SLURM_\w+|LIGHTCONE_\w+|OMP_NUM_THREADS|HOME|USER|UID|HOSTNAME|RANDOM|SECONDS|PATH"
    r"|PYTHONPATH|PWD|OLDPWD|TMPDIR|LINENO|PPID)\b"
    r"|\$\{?[?!#@*$-]|\$[({]MAKE[)}]"
)
_ARRAY = re.compile(r"\b([A-Za-z_]\w*)\+?=\(")
_IS_PLAIN = re.compile(r"[\w./~+@%:,=\0-]*")
_DEFAULT_FILES = {"snakemake": ("Snakefile", "workflow/Snakefile")}
_PRINTED = re.compile(
    r"""\bprintf[ \t]+-v[ \t]+(\w+)[ \t]+['"]?([\w./-]+)['"]?(?=[ \t]*(?:[\n;&|]|$))"""
)
_READ_INTO = re.compile(r"(?<![\w.-])(read|mapfile|readarray|printf)[ \t]+([^\n;|&<>()]*)")
_MAKEFILES = ("GNUmakefile", "makefile", "Makefile")
_MAX_VALUES = 64
# No path is longer, and of a list of paths only its parts count.
_LONGEST = 4096

_Variables = dict[str, tuple[str, ...]]


def read_shell(text: str, *, is_make: bool = False) -> References:
    """Return what a shell text or a Makefile refers to."""
    text, variables = _resolve(text, is_make=is_make)
    if is_make:
        commands = [
            Command(tuple(word._replace(line=line) for word in command.words), command.operator)
            for line, logical in _logical_lines(text)
            for command in read_commands(logical)
        ]
    else:
        commands = list(read_commands(text))
    reader = _Reader(text, variables)
    if is_make:
        reader.read_targets(word for each in _TARGETS.findall(text) for word in each.split())
    for command in commands:
        reader.read(command)
    return reader.references()


class _Reader:
    """Reader of the commands of one text."""

    def __init__(self, text: str, variables: _Variables) -> None:
        self._variables = variables
        self._arrays = set(_ARRAY.findall(text))
        self._found: list[Reference] = []
        self._directories: list[str] = []
        self._search: list[str] = []
        self._not_followed: list[NotFollowed] = []

    def references(self) -> References:
        """Return everything that was found."""
        return References(
            tuple(dict.fromkeys(self._found)),
            tuple(dict.fromkeys(map(_without_computed, self._search))),
            tuple(map(_without_computed, self._directories)),
            tuple(dict.fromkeys(self._not_followed)),
        )

    def read(self, command: Command) -> None:
        """Note what a command refers to."""
        words = [each for each in command.words if not each.redirect]
        program = next((n for n, each in enumerate(words) if _is_program(each.text)), 0)
        name = _name(words[program]) if words else ""
        assigned = [each for each in words if _is_assignment(each.text)]
        written = set(written_by(command))
        for word in written:
            self._read_written(word)
        for word in command.words:
            if word.redirect != "<<" and word not in written:
                is_file = word.redirect == "<" or (
                    not word.redirect
                    and not command.is_quoted
                    and name not in _PRINTS
                    and word not in assigned
                )
                self._read_word(word, is_file=is_file)
        if not words:
            return
        line = words[0].line
        for number, word in enumerate(words):
            self._read_option(words, number, word)
            each = _name(word)
            if _INTERPRETER.fullmatch(each):
                self._run(command, words, number, each)
            elif each in (*_DEFAULT_FILES, "make", "gmake", "$(MAKE)", "${MAKE}"):
                self._found += (
                    Reference(Kind.PATH, default, line)
                    for default in self._defaults(each, words[number + 1 :])
                )
        if name in ("cd", "pushd"):
            self._change(words[program + 1 :], command)
        elif name in (".", "source") and not command.is_quoted:
            self._check_script(words, words[program + 1 : program + 2], line)
        elif command.is_quoted:
            return
        elif any(_name(each) in ("xargs", "parallel") for each in words):
            self._cannot(words, "the files named in its input are not followed", line)
        elif name in ("find", "fd"):
            self._cannot(words, "the files that it finds are not followed", line)
        elif name == "eval" and _UNRESOLVED.search(" ".join(each.text for each in words)):
            self._cannot(words, "the command is computed", line)

    def read_targets(self, targets: Iterable[str]) -> None:
        """Note the targets of a Makefile."""
        self._found += (Reference(Kind.WRITTEN, target, 0) for target in targets)

    def _cannot(self, words: list[Word], why: str, line: int) -> None:
        self._not_followed.append(NotFollowed(_shown(words), why, line))

    def _read_written(self, word: Word) -> None:
        for text, is_pattern in _expanded(word, self._variables):
            if not is_pattern and not _UNRESOLVED.search(text):
                self._found.append(Reference(Kind.WRITTEN, bare(text), word.line))

    def _read_word(self, word: Word, *, is_file: bool) -> None:
        for text, is_pattern in _expanded(word, self._variables):
            if not _UNRESOLVED.search(text):
                kind = Kind.PATTERN if is_pattern else Kind.PATH
                self._found.append(Reference(kind, bare(text), word.line))
            elif _LIKE_A_PATH.match(text) and _EXPANSION.fullmatch(text) is None:
                self._not_followed += _unresolved(text, word.line, self._found)
            elif is_file and self._is_computed(text) and not self._is_array(text):
                why = "what it stands for is computed"
                self._not_followed.append(NotFollowed(bare(text), why, word.line))

    def _is_computed(self, text: str) -> bool:
        """Return whether a word is nothing but a substitution or an unknown variable."""
        if _EXPANSION.fullmatch(text) is None or text.startswith("<("):
            return False
        if text.startswith("$("):
            return not bare(text[:3]).startswith("$((")
        return _POSITIONAL.match(text) is None and _NO_FILE.match(text) is None

    def _is_array(self, text: str) -> bool:
        """Return whether a word stands for an array, whose words are in the text."""
        name = re.match(r"\$\{[#!]?(\w+)\[", text)
        return name is not None and name[1] in self._arrays - self._variables.keys()

    def _read_option(self, words: list[Word], number: int, word: Word) -> None:
        """Note the module after ``-m``, the directory after ``-C``, and ``PYTHONPATH``."""
        text = word.text
        following = words[number + 1] if number + 1 < len(words) else None
        runs_module, moves = _RUNS_MODULE.fullmatch(text), _MOVES.fullmatch(text)
        if runs_module is not None:
            module = runs_module[1] or (following.text if following else "")
            match = _MODULE.fullmatch(module)
            if match is not None:
                name = match[1].strip(".")
                self._found.append(Reference(Kind.RUN, name, word.line))
                self._found.append(Reference(Kind.RUN, f"{name}.__main__", word.line))
            elif _UNRESOLVED.search(module):
                what = _shown(words)
                self._not_followed.append(
                    NotFollowed(what, "the module's name is computed", word.line)
                )
        elif moves is not None:
            if moves[1] or following is not None:
                self._add_directories(moves[1] or (following.text if following else ""))
        elif text.startswith(("PYTHONPATH=", "PYTHONPATH+=")):
            for value in _values(text.partition("=")[2], self._variables):
                self._search += filter(None, map(bare, value.split(":")))

    def _add_directories(self, text: str) -> None:
        self._directories += map(bare, _values(text, self._variables))

    def _change(self, words: list[Word], command: Command) -> None:
        target = next((each for each in words if not re.match(r"-\w|--$", each.text)), None)
        if target is None:
            return
        self._add_directories(target.text)
        for text in _values(target.text, self._variables):
            if _EXPANSION.fullmatch(text) and not command.is_quoted:
                why = "the directory is computed"
                self._not_followed.append(NotFollowed(f"cd {bare(text)}", why, target.line))

    def _run(self, command: Command, words: list[Word], number: int, name: str) -> None:
        """Note the script that an interpreter runs, where it is none of the words."""
        is_shell = _SHELLS.fullmatch(name) is not None
        takes_value = _TAKES_VALUE["sh" if is_shell else "python"]
        rest = iter(words[number + 1 :])
        for word in rest:
            if word.text in takes_value:
                next(rest, None)
            elif is_shell and re.fullmatch(r"-\w*c", word.text):
                script = next(rest, None)
                if script is not None and not command.is_quoted:
                    self._run_text(script, words)
                return
            elif _ENDS_OPTIONS.match(word.text):
                return
            elif not word.text.startswith(("-", "+")):
                if name.startswith("python"):
                    for text in _values(word.text, self._variables):
                        path = f"{bare(text).rstrip('/')}/__main__.py"
                        if "$" not in path:
                            self._found.append(Reference(Kind.PATH, path, word.line))
                if not command.is_quoted:
                    self._check_script(words, [word], word.line)
                return
        has_input = any(each.redirect.startswith("<") for each in command.words)
        if command.operator in ("|", "|&") and not has_input and not command.is_quoted:
            self._cannot(words, "the program that it reads is computed", words[0].line)

    def _run_text(self, script: Word, words: list[Word]) -> None:
        """Read the text that a shell runs after ``-c``."""
        if _EXPANSION.fullmatch(script.text):
            self._cannot(words, "the command is computed", script.line)
            return
        text, variables = _resolve(bare(script.text), is_make=False)
        outer, self._variables = self._variables, self._variables | variables
        for each in read_commands(text):
            line = script.line
            self.read(each._replace(words=tuple(one._replace(line=line) for one in each.words)))
        self._variables = outer

    def _check_script(self, words: list[Word], script: list[Word], line: int) -> None:
        """Note a script of which the whole name is computed."""
        for word in script:
            for text in _values(word.text, self._variables):
                if _EXPANSION.fullmatch(text) and not _POSITIONAL.match(text):
                    self._cannot(words, "the script's name is computed", line)

    def _defaults(self, program: str, arguments: list[Word]) -> Iterator[str]:
        """Yield the files that a program looks for where no argument names one."""
        texts = [each.text for each in arguments]
        names_file = _NAMES_SNAKEFILE if program in _DEFAULT_FILES else _NAMES_MAKEFILE
        if not any(map(names_file.match, texts)):
            moves = ((_MOVES.fullmatch(one), two) for one, two in pairwise([*texts, ""]))
            into = next((match[1] or two for match, two in moves if match is not None), "")
            for directory in _values(into or ".", self._variables):
                for name in _DEFAULT_FILES.get(program, _MAKEFILES):
                    yield join(bare(directory), name)


def _is_program(text: str) -> bool:
    """Return whether a word may be the program of a command, not what stands before it."""
    return text not in _BEFORE_PROGRAM and not _is_assignment(text)


def _is_assignment(text: str) -> bool:
    return re.match(r"[A-Za-z_]\w*\+?=", text) is not None


def _name(word: Word) -> str:
    text = word.text.lstrip("@+-") if word.text not in ("-", "+") else word.text
    return text if text.startswith("$") else text.rpartition("/")[2]


def _shown(words: list[Word]) -> str:
    while words[1:] and not _is_program(words[0].text):
        words = words[1:]
    text = " ".join(bare(each.text) for each in words).replace("\n", " ")
    return text if len(text) <= 60 else f"{text[:57]}..."


def _resolve(text: str, *, is_make: bool) -> tuple[str, _Variables]:
    """Fill in what the text itself shows of substitutions and variables."""
    variables: _Variables = {}
    if "$" not in text and "`" not in text:
        return text, variables
    pattern = _VARIABLE_IN_MAKE if is_make else _VARIABLE
    for _ in range(5):
        before = text
        for known, instead in _KNOWN:
            text = known.sub(instead, text)
        text = _DIRNAME.sub(lambda match: parent(match[1]), text)
        variables = _variables(text, is_make)

        def fill(match: re.Match[str]) -> str:
            values = variables.get(match[1] or match[2], ())  # noqa: B023
            if not values and match[3]:
                return match[3]
            is_plain = len(values) == 1 and _IS_PLAIN.fullmatch(values[0])
            return values[0] if is_plain else match[0]

        text = pattern.sub(fill, text)
        if text == before or len(text) > len(before) + (1 << 20):
            break
    return text, variables


def _variables(text: str, is_make: bool) -> _Variables:
    """Return the values that a text gives its variables.

    One that is computed, too, has itself among its values.
    """
    variables: dict[str, list[str]] = {}
    computed: set[str] = set()
    for name, added, value in (_ASSIGNED_IN_MAKE if is_make else _ASSIGNED).findall(text):
        value = value.strip() if is_make else unquoted(value)
        known = variables.setdefault(name, [])
        # One that is added to, as PYTHONPATH=lib:$PYTHONPATH, is also what is added.
        is_added = bool(added) and not is_make
        for itself in (f"${name}", f"${{{name}}}", f"$({name})"):
            if itself in value:
                known += [value.replace(itself, each) for each in known[:_MAX_VALUES]]
                value = value.replace(itself, "")
        if is_added:
            known += [each + value for each in known[:_MAX_VALUES]]
        if not is_added or not known:
            known.append(value)
    for name, words in _LOOP.findall(text):
        if "$" in words or "`" in words:
            computed.add(name)
        else:
            variables.setdefault(name, []).extend(split_words(words)[:_MAX_VALUES])
    for name, value in _PRINTED.findall(text):
        variables.setdefault(name, []).append(value)
    printed = {name for name, _ in _PRINTED.findall(text)}
    if not is_make:
        computed.update(name for name in _names_read(text) if name not in printed)
        computed.update(filter(None, chain.from_iterable(_COUNTED.findall(text))))
    for name, values in variables.items():
        if any("$(" in value and "$((" not in value for value in values):
            computed.add(name)
    known_values = {
        name: tuple(dict.fromkeys(v for v in values if "$" not in v and "`" not in v))
        for name, values in variables.items()
    }
    named = {name: (*known_values.get(name, ()), f"${{{name}}}") for name in computed}
    return {name: values for name, values in (known_values | named).items() if values}


def _names_read(text: str) -> Iterator[str]:
    """Yield the variables that a text gives values by ``read``, ``mapfile`` or ``printf -v``."""
    for match in _READ_INTO.finditer(text):
        words = match[2].split()
        if match[1] == "printf":
            if words[:1] == ["-v"] and len(words) > 1:
                yield words[1]
            continue
        skipped = False
        for word in words:
            if word.startswith("-"):
                skipped = word[-1] in _TAKE_VALUES[match[1]]
            elif skipped:
                skipped = False
            elif word.isidentifier():
                yield word


def _expanded(word: Word, variables: _Variables) -> Iterator[tuple[str, bool]]:
    """Yield the paths that a word may stand for, and whether each is a pattern."""
    for text, pattern in _filled(word, variables):
        pieces = [text, *_pieces(text)] if _MARKS.search(text) else [text]
        if text != word.text and " " in text:
            # The shell splits the value of a variable.
            pieces += text.split()
        for piece in pieces:
            if piece and len(piece) < 1024 and "\n" not in piece:
                is_pattern = _is_pattern(piece, pattern if piece == text else piece)
                yield f".{piece[2:]}" if piece.startswith("~+/") else piece, is_pattern


_MARKS = re.compile(r"[=,:@]|^-\w")


def _pieces(text: str) -> Iterator[str]:
    """Yield the parts of a word that may be paths: of ``-f=a,b``, ``@a`` or ``-fa``."""
    for piece in re.split(r"[=,:]", text):
        yield piece
        if piece.startswith("@"):
            yield piece[1:]
    yield text.partition("=")[2]
    if re.match(r"-\w[\w./]", text):
        yield text[2:]


def _is_pattern(text: str, pattern: str) -> bool:
    """Return whether the shell, or else the program that gets it, expands a word.

    A quoted pattern counts if it has a directory: ``"data/*.csv"``, but not ``-name '*.csv'``.
    """
    if _MAGIC.search(text) is None or text.startswith("-"):
        return False
    unquoted = re.sub(r"\[[*?[]\]", "", pattern)
    return _MAGIC.search(unquoted) is not None or ("/" in text and " " not in text)


def _filled(word: Word, variables: _Variables) -> list[tuple[str, str]]:
    """Return the texts and patterns of a word with its variables and braces filled in."""
    filled = [(word.text, word.pattern)]
    if "$" in word.text and len(word.text) < _LONGEST:
        for match in _VARIABLE.finditer(word.text):
            values = variables.get(match[1] or match[2], ())
            if values and len(filled) * len(values) <= _MAX_VALUES:
                filled = [
                    (text.replace(match[0], value), pattern.replace(match[0], value))
                    for text, pattern in filled
                    for value in values
                ]
    if "{" in word.text and len(word.text) < _LONGEST:
        filled = [
            (one, one) if one != text else (text, pattern)
            for text, pattern in filled
            for one in _multiplied(text)
        ]
    return filled


def _multiplied(text: str) -> list[str]:
    """Return the words that the shell makes of one with braces: ``a{b,c}`` of two."""
    texts = [text]
    for _ in range(4):
        more = []
        for each in texts:
            match = _BRACES.search(each)
            if match is None:
                more.append(each)
                continue
            if match[2]:
                first, last = int(match[2]), int(match[3])
                width = len(match[2]) if match[2].startswith("0") else 0
                span = range(min(first, last), min(max(first, last), first + 1000) + 1)
                options = [f"{number:0{width}d}" for number in span]
            else:
                options = match[1].split(",")
            more += [each[: match.start()] + option + each[match.end() :] for option in options]
        if more == texts or len(more) > 4 * _MAX_VALUES:
            break
        texts = more
    return texts


def _unresolved(text: str, line: int, found: list[Reference]) -> Iterator[NotFollowed]:
    """Note the end of a word as a guess, if only its beginning is unresolved."""
    if not _LIKE_A_PATH.match(text):
        return
    rest = _without_computed(text)
    if rest != text and "$" not in rest and "`" not in rest:
        found.append(Reference(Kind.GUESS, bare(rest), line, bare(text)))
    else:
        yield NotFollowed(bare(text), "a variable in it is not set here", line)


def _values(text: str, variables: _Variables) -> list[str]:
    """Return the values of a word of which only variables are to be filled in."""
    return [each for each, _ in _filled(Word(text, text), variables)]


def _without_computed(path: str) -> str:
    """Return a path without the variable or substitution at its beginning."""
    computed = _COMPUTED.match(path)
    if computed is None or not computed[0].startswith("$"):
        return path
    return path[computed.end() :]


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a Makefile, continued ones as one, with their numbers."""
    waiting: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.endswith("\\"):
            waiting.append(line[:-1])
        else:
            yield number - len(waiting), " ".join([*waiting, line])
            waiting = []
    if waiting:
        yield text.count("\n") + 2 - len(waiting), " ".join(waiting)
