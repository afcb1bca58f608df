"""The keyboard of a terminal, one key at a time."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import select
import termios
from collections.abc import Iterator

__all__ = ["Keyboard", "decode"]

_SEQUENCE = re.compile(rb"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|O[A-Za-z])")
_UNFINISHED = re.compile(rb"\x1b(?:\[[0-9;?]*|O)?")
_KEY_NAMES = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1b[H": "home",
    b"\x1b[F": "end",
    b"\x1bOH": "home",
    b"\x1bOF": "end",
    b"\x1b[1~": "home",
    b"\x1b[4~": "end",
}
_CHARACTER_NAMES = {
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\x08": "backspace",
    "\x03": "ctrl-c",
}
# A terminal far away may send the parts of one key one after the other.
_SEQUENCE_TIMEOUT = 0.05


class Keyboard:
    """The keys typed on a terminal, read while the keyboard is open.

    Nothing that is typed is shown, and no key makes a signal: Ctrl-C is a key too.
    """

    def __init__(self, terminal: int) -> None:
        self.terminal = terminal
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")

    @contextlib.contextmanager
    def open(self) -> Iterator[Keyboard]:
        """Put the terminal into raw mode, and restore it at the end."""
        before = termios.tcgetattr(self.terminal)
        raw = termios.tcgetattr(self.terminal)
        raw[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN)
        raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self.terminal, termios.TCSADRAIN, raw)
        try:
            yield self
        finally:
            termios.tcsetattr(self.terminal, termios.TCSADRAIN, before)

    def read(self) -> list[str]:
        """Read the keys typed; blocks until there is one.

        Raises:
            EOFError: where the terminal is gone.
        """
        keys: list[str] = []
        data = self._read_bytes()
        while True:
            decoded, rest = decode(data, self._decoder)
            keys += decoded
            if not rest:
                return keys
            if not select.select([self.terminal], [], [], _SEQUENCE_TIMEOUT)[0]:
                return [*keys, "escape"]
            data = rest + self._read_bytes()

    def _read_bytes(self) -> bytes:
        try:
            data = os.read(self.terminal, 1024)
        except OSError as error:
            raise EOFError from error
        if not data:
            raise EOFError
        return data


def decode(data: bytes, decoder: codecs.IncrementalDecoder) -> tuple[list[str], bytes]:
    """Decode the keys in ``data``; returns them, and an unfinished sequence.

    Characters are themselves, other keys have names: "up", "enter", "escape". Keys without a name
    are left out.
    """
    keys: list[str] = []
    while data:
        sequence = _SEQUENCE.match(data)
        if sequence is not None:
            keys += [_KEY_NAMES[sequence[0]]] if sequence[0] in _KEY_NAMES else []
            data = data[sequence.end() :]
        elif _UNFINISHED.fullmatch(data):
            return keys, data
        elif data[0] == 0x1B:
            keys.append("escape")
            data = data[1:]
        else:
            text, data = data[:1], data[1:]
            for character in decoder.decode(text):
                named = _CHARACTER_NAMES.get(character)
                if named is not None or character.isprintable():
                    keys.append(named or character)
    return keys, b""
