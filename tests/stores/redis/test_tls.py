"""A server behind TLS."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from litellm_budget_plugin.core.commands import Settled
from litellm_budget_plugin.errors import BudgetStoreError, BudgetStoreUnavailable
from tests.stores.desk import charge_of
from tests.stores.redis.server import shared

Opener = Callable[..., Any]


class Front(NamedTuple):
    """The TLS proxy in front of the shared server: its port and the file of its certificate."""

    port: int
    certificate: Path


def certify(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ledger")])
    now = dt.datetime.now(dt.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def forward(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for side in (source, target):
        with suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)
    source.close()


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    certificate, key = certify(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listening, server = socket.create_server(("127.0.0.1", 0)), str(shared().socket)

    def accept() -> None:
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            with suppress(OSError):
                client = context.wrap_socket(plain, server_side=True)
                upstream = socket.socket(socket.AF_UNIX)
                upstream.connect(server)
                for ends in ((client, upstream), (upstream, client)):
                    threading.Thread(target=forward, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield Front(listening.getsockname()[1], certificate)
    listening.close()


def test_a_certificate_is_verified(front: Front, opened: Opener) -> None:
    """It is verified by the authority in the URL. A server without a valid certificate is refused, and waiting does not help."""
    url = f"rediss://127.0.0.1:{front.port}?prefix=tls-{front.port}:"
    for some in (f"{url}&ssl_ca_certs={front.certificate}", f"{url}&ssl_cert_reqs=none"):
        assert opened(some).execute(charge_of("h")) == Settled("h")
    with pytest.raises(BudgetStoreError, match="certificate cannot be verified.*ssl_ca_certs") as raised:
        opened(url)
    assert not isinstance(raised.value, BudgetStoreUnavailable)


def test_another_name_than_the_certificates(front: Front, opened: Opener) -> None:
    url = f"rediss://localhost:{front.port}?prefix=tls-{front.port}:&ssl_ca_certs={front.certificate}"
    with pytest.raises(BudgetStoreError, match="certificate cannot be verified"):
        opened(url)
    assert opened(f"{url}&ssl_check_hostname=false").execute(charge_of("h")) == Settled("h")


def test_a_server_that_does_not_speak_tls(own_server: Callable[..., Any], opened: Opener) -> None:
    with pytest.raises(BudgetStoreError) as raised:
        opened(own_server().url.replace("redis://", "rediss://"), timeout=1.0)
    assert "rediss://127.0.0.1" in str(raised.value)
