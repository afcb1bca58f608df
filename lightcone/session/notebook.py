"""The client of ``lightcone.connect()``: the engine's own, which shows itself in notebooks."""

from __future__ import annotations

import html
from typing import Any

from distributed import Client

from lightcone.units import format_bytes

__all__ = ["SessionClient"]


class SessionClient(Client):
    """A client on a session.

    Attributes:
        description: what the session said of itself, set by whoever makes the client.
    """

    description: dict[str, Any]

    def _repr_html_(self) -> str:
        told = self.description
        workers = "".join(
            f"<li>{html.escape(str(worker['host']))}: {worker['cpus']:g} cpus, "
            f"{format_bytes(int(worker['memory']))}"
            f"{', ' + str(worker['gpus']) + ' gpus' if worker['gpus'] else ''}</li>"
            for worker in told["workers"]
        )
        return (
            '<div style="border:1px solid #888;border-radius:4px;padding:0.5em 1em;'
            'display:inline-block">'
            f"<b>{html.escape(str(told['name']))}</b> ({html.escape(self.status)})"
            f"<br>{html.escape(str(told['root']))}"
            f'<ul style="margin:0.3em 0">{workers}</ul>'
            "<code>lc session status</code>, <code>lc session attach</code></div>"
        )
