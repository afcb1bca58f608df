"""The key that a session's own programs and callers know each other by."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from lightcone.files import write_atomically

__all__ = ["create"]

# Valid whatever the clock says, which may be put right in the lifetime of the session.
# RFC 5280, 4.1.2.5: this end stands for none.
_VALID = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))


def create(path: Path) -> None:
    """Write a new private key and its self-signed certificate to ``path``, in one PEM (0600).

    The certificate is its own authority: whoever has the file is of the session, and nobody else.
    EC P-256 (FIPS 186-5), X.509 v3 (RFC 5280).
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lightcone session")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_VALID[0])
        .not_valid_after(_VALID[1])
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    pem += certificate.public_bytes(serialization.Encoding.PEM)
    write_atomically(path, pem, durable=False)
