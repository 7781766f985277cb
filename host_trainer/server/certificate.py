"""Touches the folder `tls` of a fleet: makes the host's certificate and key once, tells the fingerprint.

Devices know the certificate by its SHA-256, not by who signed it or how old it is: a board without a clock
would find any certificate too young or too old. So it is valid from 2000 on and never expires (RFC 5280,
4.1.2.5); a new one means that every device is enrolled again.
"""

import hashlib
import ipaddress
import os
import socket
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from edge_cl.errors import StoreError
from host_trainer.artefacts import sync_folder

FOLDER, CERTIFICATE, KEY = "tls", "certificate.pem", "key.pem"
COMMON_NAME = "edge-cl host"
FROM = datetime(2000, 1, 1, tzinfo=timezone.utc)
UNTIL = datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone.utc)
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700


class Certificate(NamedTuple):
    """The host's certificate: both files, and the SHA-256 of the certificate as it goes over the line."""

    certificate: Path
    key: Path
    fingerprint: bytes


def certificate_of(fleet: Path, names: Iterable[str] = ()) -> Certificate:
    """Return the certificate of a fleet's host, made on the first call.

    Args:
        fleet: its folder.
        names: addresses beside this machine's own, for programs that look at them; devices do not.

    Raises:
        StoreError: the files cannot be written, or do not read.
    """
    folder = fleet / FOLDER
    certificate, key = folder / CERTIFICATE, folder / KEY
    try:
        if not certificate.exists():
            _make(folder, names)
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
    except OSError as error:
        raise StoreError(f"{folder} cannot be used ({error.strerror}): check space and rights") from error
    except ValueError as error:
        raise StoreError(f"{certificate} is no certificate: restore a copy of it") from error
    if not key.exists():
        raise StoreError(
            f"{key} is gone: restore a copy of it, or remove {folder} and enrol all devices anew"
        )
    return Certificate(certificate, key, hashlib.sha256(found.public_bytes(Encoding.DER)).digest())


def machine_name() -> str:
    """Return what this machine is called in its network."""
    return socket.gethostname()


def _make(folder: Path, names: Iterable[str]) -> None:
    """Write the key, then the certificate: what is there with a certificate is whole."""
    private = generate_private_key(SECP256R1())
    made = _signed(private, {"localhost", "127.0.0.1", "::1", machine_name(), *names} - {""})
    folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    secret = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for name, data in ((KEY, secret), (CERTIFICATE, made.public_bytes(Encoding.PEM))):
        part = folder / f".part-{name}"
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        part.replace(folder / name)
    sync_folder(folder)
    sync_folder(folder.parent)


def _signed(private: EllipticCurvePrivateKey, names: Iterable[str]) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, COMMON_NAME)])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(FROM)
        .not_valid_after(UNTIL)
        .add_extension(x509.SubjectAlternativeName([_named(each) for each in sorted(names)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(private, SHA256())
    )


def _named(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name.encode("idna").decode("ascii"))
