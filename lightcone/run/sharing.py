"""The share of a worker's resources that a command gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightcone.project.settings import SETTINGS_FILE
from lightcone.spec.output import Output, Resources
from lightcone.system.units import format_bytes

__all__ = ["Refused", "Share", "share_for", "share_for_output"]


@dataclass(frozen=True)
class Share:
    """The processors that a command gets, and the resources that it holds."""

    cpus: float
    resources: dict[str, float] | None


@dataclass(frozen=True)
class Refused:
    """A request that no worker can ever fulfil; ``why`` is the reason."""

    why: str


def share_for_output(
    output: Output, workers: Sequence[dict[str, float]], oversized: str
) -> Share | Refused:
    """The share of a worker that ``output``'s recipe gets.

    Args:
        output: the output whose recipe asks.
        workers: the resources of each worker; empty where they declare none.
        oversized: ``"refuse"`` or ``"clamp"``, for a request that no worker can fulfil.
    """
    share = share_for(output.resources, workers, clamp=oversized == "clamp")
    if isinstance(share, Refused) and _with_devices(output.resources, workers):
        return Refused(f'{share.why}, or set oversized = "clamp" in [run] of {SETTINGS_FILE}')
    return share


def share_for(
    requested: Resources, workers: Sequence[dict[str, float]], *, clamp: bool
) -> Share | Refused:
    """The share for plain resources; only devices are never clamped."""
    if not workers:
        return Share(requested.cpus, None)
    amounts = {
        "CPU": requested.cpus,
        "MEMORY": float(requested.memory),
        "GPU": float(requested.gpus),
    }
    amounts = {name: amount for name, amount in amounts.items() if amount}
    if not any(_has(worker, amounts) for worker in workers):
        usable = _with_devices(requested, workers)
        if not clamp or not usable:
            return Refused(_explain_refusal(amounts, workers))
        largest = max(usable, key=lambda worker: (worker.get("CPU", 0), worker.get("MEMORY", 0)))
        amounts = {name: min(amount, largest.get(name, 0)) for name, amount in amounts.items()}
    return Share(amounts.get("CPU", requested.cpus), amounts)


def _has(worker: dict[str, float], amounts: dict[str, float]) -> bool:
    return all(worker.get(name, 0) >= amount for name, amount in amounts.items())


def _with_devices(
    requested: Resources, workers: Sequence[dict[str, float]]
) -> list[dict[str, float]]:
    return [worker for worker in workers if worker.get("GPU", 0) >= requested.gpus]


def _explain_refusal(amounts: dict[str, float], workers: Sequence[dict[str, float]]) -> str:
    largest = {name: max(worker.get(name, 0) for worker in workers) for name in amounts}
    return (
        f"it asks for {_format_amounts(amounts)}, and the largest worker has "
        f"{_format_amounts(largest)}: lower what it asks for"
    )


def _format_amounts(amounts: dict[str, float]) -> str:
    formats = {
        "CPU": lambda amount: f"{amount:g} cpu{'' if amount == 1 else 's'}",
        "MEMORY": lambda amount: f"{format_bytes(amount)} of memory",
        "GPU": lambda amount: f"{amount:g} gpu{'' if amount == 1 else 's'}",
    }
    return ", ".join(formats[name](amount) for name, amount in amounts.items())
