"""The private authority of a single-machine system."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from airavata_scheduler.backends.certificates import ensure_private_authority, public_key_pin


def _serve_once(folder: Path) -> tuple[int, threading.Thread]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with listener, listener.accept()[0] as connection:
            try:
                with context.wrap_socket(connection, server_side=True) as secured:
                    secured.recv(1)
            except (ssl.SSLError, ConnectionError):
                return

    thread = threading.Thread(target=accept)
    thread.start()
    return int(listener.getsockname()[1]), thread


def _connect(port: int, authority: Path, name: str) -> None:
    trust = ssl.create_default_context(cafile=str(authority))
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        trust.wrap_socket(plain, server_hostname=name),
    ):
        pass


def test_its_certificate_is_trusted_for_its_names(tmp_path: Path) -> None:
    """A client that knows the authority verifies the chain and the name."""
    ensure_private_authority(tmp_path, ["localhost", "127.0.0.1"])

    for name in ("localhost", "127.0.0.1"):
        port, thread = _serve_once(tmp_path)
        _connect(port, tmp_path / "ca.pem", name)
        thread.join()


def test_another_name_is_refused(tmp_path: Path) -> None:
    """The certificate covers what it says and no more."""
    ensure_private_authority(tmp_path, ["localhost"])
    port, thread = _serve_once(tmp_path)

    with pytest.raises(ssl.SSLCertVerificationError):
        _connect(port, tmp_path / "ca.pem", "elsewhere.example.org")

    thread.join()


def test_it_is_made_once_and_again_for_other_names(tmp_path: Path) -> None:
    """A restart keeps the authority that agents know; a new host name needs a new one."""
    ensure_private_authority(tmp_path, ["localhost"])
    first = (tmp_path / "ca.pem").read_bytes()
    ensure_private_authority(tmp_path, ["localhost"])
    kept = (tmp_path / "ca.pem").read_bytes()

    ensure_private_authority(tmp_path, ["localhost", "node7"])

    assert kept == first
    assert (tmp_path / "ca.pem").read_bytes() != first


def test_the_private_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    """The server's key is 0600, and the authority's key is nowhere."""
    ensure_private_authority(tmp_path, ["localhost"])

    assert (tmp_path / "server.key").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ca.pem",
        "server.key",
        "server.pem",
    ]


def test_the_pin_is_the_one_that_openssl_computes(tmp_path: Path) -> None:
    """`curl --pinnedpubkey sha256//…` takes the hash of the public key in DER."""
    ensure_private_authority(tmp_path, ["localhost"])
    pipeline = (
        f"openssl x509 -in {tmp_path}/server.pem -noout -pubkey | openssl pkey -pubin -outform der"
        " | openssl dgst -sha256 -binary | base64"
    )
    expected = subprocess.run(["sh", "-c", pipeline], capture_output=True, text=True, check=True)

    assert public_key_pin((tmp_path / "server.pem").read_bytes()) == expected.stdout.strip()
