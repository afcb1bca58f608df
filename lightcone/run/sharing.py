"""What a command is given of a worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightcone.project.settings import SETTINGS_FILE
from lightcone.spec.output import Output, Resources
from lightcone.system.units import format_bytes

__all__ = ["Refused", "Share", "share_for_output"]


@dataclass(frozen=True)
class Share:
    """Processors given, and what the engine holds for the command."""

    cpus: float
    resources: dict[str, float] | None


@dataclass(frozen=True)
class Refused:
    """No worker can ever give what is asked for; ``why`` says what."""

    why: str


def share_for_output(
    output: Output, workers: Sequence[dict[str, float]], oversized: str
) -> Share | Refused:
    """The share of a worker that ``output``'s recipe gets.

    Args:
        output: the output whose recipe asks.
        workers: what each worker has; empty where they declare nothing.
        oversized: ``"refuse"`` or ``"clamp"``, for what no worker has.
    """
    given = share_for(output.resources, workers, clamp=oversized == "clamp")
    if isinstance(given, Refused) and _with_devices(output.resources, workers):
        return Refused(f'{given.why}, or set oversized = "clamp" in [run] of {SETTINGS_FILE}')
    return given


def share_for(
    asked: Resources, workers: Sequence[dict[str, float]], *, clamp: bool
) -> Share | Refused:
    """The same for a bare request; of what no worker has, devices are never less than asked."""
    if not workers:
        return Share(asked.cpus, None)
    wanted = {"CPU": asked.cpus, "MEMORY": float(asked.memory), "GPU": float(asked.gpus)}
    wanted = {name: amount for name, amount in wanted.items() if amount}
    if not any(_holds(worker, wanted) for worker in workers):
        usable = _with_devices(asked, workers)
        if not clamp or not usable:
            return Refused(_refusal(wanted, workers))
        largest = max(usable, key=lambda worker: (worker.get("CPU", 0), worker.get("MEMORY", 0)))
        wanted = {name: min(amount, largest.get(name, 0)) for name, amount in wanted.items()}
    return Share(wanted.get("CPU", asked.cpus), wanted)


def _holds(worker: dict[str, float], wanted: dict[str, float]) -> bool:
    return all(worker.get(name, 0) >= amount for name, amount in wanted.items())


def _with_devices(asked: Resources, workers: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    return [worker for worker in workers if worker.get("GPU", 0) >= asked.gpus]


def _refusal(wanted: dict[str, float], workers: Sequence[dict[str, float]]) -> str:
    largest = {name: max(worker.get(name, 0) for worker in workers) for name in wanted}
    return (
        f"it asks for {_words(wanted)}, and the largest worker has {_words(largest)}: lower what "
        "it asks for"
    )


def _words(amounts: dict[str, float]) -> str:
    words = {
        "CPU": lambda amount: f"{amount:g} cpu{'' if amount == 1 else 's'}",
        "MEMORY": lambda amount: f"{format_bytes(amount)} of memory",
        "GPU": lambda amount: f"{amount:g} gpu{'' if amount == 1 else 's'}",
    }
    return ", ".join(words[name](amount) for name, amount in amounts.items())
