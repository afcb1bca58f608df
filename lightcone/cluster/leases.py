"""Leases: the named uses of a session, so that ending one does not pull it from under another."""

from __future__ import annotations

from collections import Counter

__all__ = ["Leases"]


class Leases:
    """Who has taken a lease of a session and not given it up.

    A lease of which nothing is heard any more expires: its owner may have died without a word.

    Args:
        expiry: seconds in which a lease has to be used again.
    """

    def __init__(self, expiry: float) -> None:
        self._expiry = expiry
        self._unused: dict[str, float] = {}
        self._held: Counter[str] = Counter()
        self._was_taken = False

    @property
    def names(self) -> list[str]:
        """The leases that are held, the one taken first at the beginning."""
        return list(self._unused)

    @property
    def are_over(self) -> bool:
        """Whether there have been leases and the last has been given up."""
        return self._was_taken and not self._unused

    def take(self, name: str) -> None:
        """Take a lease, or use it again."""
        self._was_taken = True
        self._unused[name] = 0.0

    def begin_use(self, name: str) -> None:
        """It is in use from now on, and does not expire."""
        self.take(name)
        self._held[name] += 1

    def end_use(self, name: str) -> None:
        """What began with :meth:`begin_use` is over."""
        self._held[name] -= 1
        if name in self._unused:
            self._unused[name] = 0.0

    def release(self, name: str) -> None:
        """Give a lease up; one that nobody has is none."""
        self._unused.pop(name, None)

    def pass_time(self, seconds: float) -> None:
        """Let those expire that have not been used for so long."""
        for name in [name for name in self._unused if not self._held[name]]:
            self._unused[name] += seconds
            if self._unused[name] >= self._expiry:
                del self._unused[name]
