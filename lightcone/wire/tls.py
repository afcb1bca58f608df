"""A session's key, and mutual TLS between the processes that have it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

__all__ = ["key_file", "tls_context"]


def key_file(state: Path) -> Path:
    """Return the file with the key and certificate of the session at ``state``."""
    return state / "tls" / "session.pem"


def tls_context(certificate: Path, *, server: bool) -> ssl.SSLContext:
    """Set up mutual TLS 1.3 between two processes that have the same key.

    Args:
        certificate: the file with the key and its certificate.
        server: whether this side accepts the connection.

    Raises:
        OSError: where the file cannot be used.
    """
    import ssl  # as slow to import as ten modules of ours, and most connections need none

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the key itself identifies the other side
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificate)
    context.load_cert_chain(certificate)
    return context
