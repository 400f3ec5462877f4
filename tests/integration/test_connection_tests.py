"""Testing a credential: real servers, real logins, and sentences that say what to do next."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from minio import Minio

from airavata_scheduler.backends import connection_tests
from airavata_scheduler.backends import credential_kinds as kinds
from airavata_scheduler.backends.connection_tests import Tested as Outcome
from airavata_scheduler.backends.outbound import OutboundRefused
from airavata_scheduler.backends.ssh_kinds import SignerAnswered, issue
from airavata_scheduler.models import database
from airavata_scheduler.models.errors import BadInput
from tests.credentials import PASSPHRASE, authority, client_certificate, data, key_pem, kubeconfig
from tests.servers.programs import running, server_folder
from tests.servers.seaweedfs import OWNER, READER, SeaweedFS
from tests.servers.sshd import PASSWORD, SSHServer
from tests.servers.tls import TOKEN, TLSServer, tls_server

LOOPBACK = ("127.0.0.0/8",)


def tried(kind: str, secret: Any, target: str, **options: Any) -> Outcome:
    """The result of a test with loopback allowed; no secret stands in it."""
    result = connection_tests.test(kind, secret, target, **{"allow": LOOPBACK, **options})

    assert result.detail.isprintable()
    assert result.detail[0].isupper() or result.detail.startswith("127.0.0.")
    assert result.detail.endswith(".")
    for name, text in secret.items():
        if name in {one.name for one in kinds.KINDS[kind].fields if one.secret}:
            assert text.strip() not in repr(result)
    assert 0 <= result.took_ms < 15_000
    return result


@pytest.fixture(autouse=True)
def clock(sqlite_url: str) -> None:
    """The database's clock, by which certificates are judged."""
    database.connect(sqlite_url)


# SSH


@pytest.fixture(scope="module")
def sshd() -> Iterator[SSHServer]:
    """An OpenSSH server."""
    with server_folder("sshd") as folder, running(SSHServer(folder)) as server:
        yield server


@pytest.mark.parametrize("algorithm", ["ed25519", "ecdsa-p256", "rsa-3072"])
def test_a_generated_key_opens_an_account(sshd: SSHServer, algorithm: str) -> None:
    """With the public line in authorized_keys, and not before."""
    value = kinds.generate("SSH_KEY", algorithm=algorithm)

    before = tried("SSH_KEY", value.secret, sshd.target)
    sshd.authorize(value.public["public_key"])
    after = tried("SSH_KEY", value.secret, sshd.target)

    assert not before.ok
    assert f"refused {sshd.user} with this public key" in before.detail
    assert after.ok
    assert "not recorded yet" in after.detail
    assert after.host_key == before.host_key == sshd.host_key


def test_an_encrypted_key_opens_an_account(sshd: SSHServer) -> None:
    """Its passphrase is part of the value."""
    secret = {"private_key": key_pem("rsa2048", "PKCS8", PASSPHRASE), "passphrase": PASSPHRASE}
    sshd.authorize(kinds.read("SSH_KEY", secret).public["public_key"])

    result = tried("SSH_KEY", secret, sshd.target, host_key=sshd.host_key)

    assert result.ok
    assert "is recorded" in result.detail


def test_a_certificate_opens_an_account(sshd: SSHServer) -> None:
    """A fresh key, signed for minutes by an authority that the server trusts."""
    secret = {"role": "lab", "principal": sshd.user, "ttl": "2m"}

    result = tried("SSH_CERTIFICATE", secret, sshd.target, sign=sshd.sign, host_key=sshd.host_key)

    assert result.ok
    assert f"{sshd.user} in by certificate" in result.detail


def test_a_certificate_of_another_authority_is_refused(sshd: SSHServer, tmp_path: Path) -> None:
    """The server says no, and the sentence says whom."""
    other = SSHServer(tmp_path)
    secret = {"role": "lab", "principal": sshd.user}

    result = tried("SSH_CERTIFICATE", secret, sshd.target, sign=other.sign)

    assert not result.ok
    assert "with this certificate" in result.detail


def test_each_certificate_has_a_key_of_its_own(sshd: SSHServer) -> None:
    """Nothing is kept; the end is the certificate's."""
    value = kinds.read("SSH_CERTIFICATE", {"role": "lab", "principal": "jane", "ttl": "15m"})

    first, second = issue(value, sshd.sign), issue(value, sshd.sign)

    assert first.private_key != second.private_key
    assert "PRIVATE KEY" not in repr(first)
    assert first.certificate.startswith("ssh-ed25519-cert-v01@openssh.com ")
    assert first.principal == "jane"


@pytest.mark.parametrize(
    "change",
    [
        lambda sign: lambda role, key, who, s: sign(role, key, f"{who},root", s),
        lambda sign: lambda role, key, who, s: sign(role, key, "root2", s),
        lambda sign: lambda role, key, who, s: sign(role, key, who, 86_400),
        lambda sign: lambda role, key, who, s: sign(role, _other_key(), who, s),
        lambda sign: lambda role, key, who, s: key,
        lambda sign: lambda role, key, who, s: "nonsense",
        lambda sign: lambda role, key, who, s: "",
    ],
    ids=["more accounts", "another", "too long", "other key", "a key", "nonsense", "nothing"],
)
def test_a_signer_that_gives_something_else_is_caught(sshd: SSHServer, change: Any) -> None:
    """A role that was set up too wide must not go unseen."""
    value = kinds.read("SSH_CERTIFICATE", {"role": "lab", "principal": "jane", "ttl": "5m"})

    with pytest.raises(SignerAnswered):
        issue(value, change(sshd.sign))


def _other_key() -> str:
    return str(kinds.generate("SSH_KEY").public["public_key"])


@pytest.fixture
def by_password(sshd: SSHServer) -> SSHServer:
    """The server, where it has an account with a password."""
    if not sshd.takes_passwords:
        pytest.skip("only root can give the server an account with a password")
    return sshd


def test_a_password_opens_an_account(by_password: SSHServer) -> None:
    """Where the server's key is recorded, as a line or as a fingerprint."""
    secret = {"username": PASSWORD[0], "password": PASSWORD[1]}
    target = f"ssh://127.0.0.1:{by_password.port}"

    line = tried("PASSWORD", secret, target, host_key=by_password.host_key)
    print_ = tried("PASSWORD", secret, target, host_key=line.fingerprint)
    wrong = tried("PASSWORD", {**secret, "password": "wrong-one"}, target, host_key=line.host_key)

    assert line.ok
    assert print_.ok
    assert not wrong.ok
    assert "refused airavata-jane with this password" in wrong.detail


def test_a_password_is_not_sent_to_an_unknown_server(sshd: SSHServer) -> None:
    """The key is shown, so that somebody can compare it and record it."""
    before = (sshd.folder / "log").read_text()

    result = tried("PASSWORD", {"username": "jane", "password": "pw-of-jane"}, sshd.target.replace(
        f"{sshd.user}@", ""))  # fmt: skip

    assert not result.ok
    assert "was not sent" in result.detail
    assert result.host_key == sshd.host_key
    assert "password for" not in (sshd.folder / "log").read_text()[len(before) :]


def test_a_server_with_another_key_gets_nothing(sshd: SSHServer, tmp_path: Path) -> None:
    """The mismatch is told with both fingerprints; the login is not tried."""
    value = kinds.generate("SSH_KEY")
    sshd.authorize(value.public["public_key"])
    other = kinds.read("SSH_KEY", {"private_key": SSHServer_key(tmp_path)}).public

    result = tried("SSH_KEY", value.secret, sshd.target, host_key=other["public_key"])

    assert not result.ok
    assert other["fingerprint"] in result.detail
    assert result.fingerprint is not None
    assert result.fingerprint in result.detail
    assert result.host_key == sshd.host_key


def SSHServer_key(folder: Path) -> str:  # noqa: N802
    """The private host key of another server."""
    return (SSHServer(folder).folder / "host").read_text()


def test_a_server_without_a_key_of_the_recorded_type(sshd: SSHServer) -> None:
    """It cannot prove to be the same one."""
    value = kinds.generate("SSH_KEY")
    recorded = kinds.generate("SSH_KEY", algorithm="rsa-3072").public["public_key"]

    result = tried("SSH_KEY", value.secret, sshd.target, host_key=recorded)

    assert not result.ok
    assert "no ssh-rsa key any more" in result.detail


@pytest.mark.parametrize(
    "host_key", ["nonsense", "ssh-ed25519 x", "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAA", "SHA256:short"]
)
def test_a_malformed_record_is_refused(sshd: SSHServer, host_key: str) -> None:
    """It must not count as none."""
    with pytest.raises(BadInput) as refusal:
        tried("SSH_KEY", kinds.generate("SSH_KEY").secret, sshd.target, host_key=host_key)

    assert refusal.value.field == "host_key"


def test_a_server_that_takes_no_passwords(tmp_path: Path) -> None:
    """The sentence says what it takes instead."""
    server = SSHServer(tmp_path)
    config = tmp_path / "sshd_config"
    config.write_text(config.read_text().replace("PasswordAuthentication yes", "PasswordAuthentication no"))  # fmt: skip  # noqa: E501
    secret = {"username": "jane", "password": "pw-of-jane"}

    with running(server):
        result = tried(
            "PASSWORD", secret, f"ssh://127.0.0.1:{server.port}", host_key=server.host_key
        )

    assert not result.ok
    assert "takes no password for jane (it takes publickey)" in result.detail


def test_the_user_is_named_once(sshd: SSHServer) -> None:
    """By the address or by the credential; two names are a mistake, none as well."""
    value = kinds.generate("SSH_KEY", username="jane")

    with pytest.raises(BadInput, match="the credential jane"):
        tried("SSH_KEY", value.secret, "ssh://john@127.0.0.1")
    with pytest.raises(BadInput, match="names no user"):
        tried("SSH_KEY", kinds.generate("SSH_KEY").secret, "ssh://127.0.0.1")


# HTTPS


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[TLSServer]:
    """An HTTPS server that takes tokens and client certificates."""
    with tls_server(tmp_path) as server:
        yield server


def token(text: str = TOKEN, **more: str) -> dict[str, str]:
    """A TOKEN's value."""
    return {"token": text, "ca": authority().pem, **more}


def test_a_token_is_taken(tls: TLSServer) -> None:
    """One GET of /api with the bearer token."""
    result = tried("TOKEN", token(), tls.target)

    assert result.ok
    assert (result.fingerprint or "").startswith("sha256:")
    assert tls.requests == [("/api", f"Bearer {TOKEN}", None)]


def test_a_wrong_token_is_refused(tls: TLSServer) -> None:
    """401 in words."""
    result = tried("TOKEN", token("another-token-0123456789"), tls.target)

    assert not result.ok
    assert "does not know this token (401)" in result.detail


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/moved", "sends on to another address (302)"),
        ("/continue", "sends on to another address (308)"),
        ("/forbidden", "forbids this path (403)"),
        ("/missing", "nothing at this path (404)"),
        ("/broken", "answered 500"),
    ],
)
def test_other_answers_are_told(tls: TLSServer, path: str, says: str) -> None:
    """And a redirect is not followed: the token goes nowhere else."""
    result = tried("TOKEN", token(), tls.target + path)

    assert not result.ok
    assert says in result.detail
    assert [request[0] for request in tls.requests] == [path]


def test_a_server_that_cannot_prove_itself_gets_no_token(tls: TLSServer, tmp_path: Path) -> None:
    """No authority, another one, or another name: in each case nothing is sent."""
    other = authority("Another authority").pem
    results = [
        tried("TOKEN", {"token": TOKEN}, tls.target),
        tried("TOKEN", {"token": TOKEN, "ca": other}, tls.target),
        tried("TOKEN", token(), tls.target.replace("127.0.0.1", "127.0.0.2")),
        tried("TOKEN", token(), tls.target.replace("127.0.0.1", "named.example.org"),
              resolve=lambda *_: ["127.0.0.1"]),
    ]  # fmt: skip

    assert [result.ok for result in results] == [False] * 4
    assert "certificate was not accepted" in results[0].detail
    assert tls.requests == []


def test_the_server_is_proved_by_its_name_and_reached_by_the_pinned_address(
    tmp_path: Path,
) -> None:
    """The name of the target is asked for once, and stands in the certificate."""
    answers = iter([["127.0.0.1"]])
    with tls_server(tmp_path, names=("k8s.example.org",)) as server:
        target = f"https://k8s.example.org:{server.port}"
        result = tried("TOKEN", token(), target, resolve=lambda *_: next(answers))

    assert result.ok


def certificate(kind: str = "p256", days: int = 30) -> dict[str, str]:
    """A CERTIFICATE's value."""
    return {
        "certificate": client_certificate(kind, days),
        "private_key": key_pem(kind),
        "ca": authority().pem,
    }


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[TLSServer]:
    """An HTTPS server that hangs up without a client certificate of the authority."""
    with tls_server(tmp_path, client_certificates=ssl.CERT_REQUIRED) as server:
        yield server


@pytest.mark.parametrize("kind", ["p256", "rsa2048"])
def test_a_client_certificate_is_taken(strict: TLSServer, kind: str) -> None:
    """The server sees the subject."""
    assert tried("CERTIFICATE", certificate(kind), strict.target).ok
    assert strict.requests == [("/api", None, "jane")]


def test_an_encrypted_key_of_a_certificate_is_used(strict: TLSServer) -> None:
    """Its passphrase is part of the value; no file of it stays behind."""
    locked = {"private_key": key_pem("p256", "PKCS8", PASSPHRASE), "passphrase": PASSPHRASE}

    assert tried("CERTIFICATE", {**certificate(), **locked}, strict.target).ok


def test_an_ended_certificate_is_refused(strict: TLSServer) -> None:
    """By the server; the sentence says with what it was tried."""
    result = tried("CERTIFICATE", certificate(days=-1), strict.target)

    assert not result.ok
    assert "client certificate" in result.detail or "hung up" in result.detail


def test_a_token_where_a_certificate_is_wanted(strict: TLSServer) -> None:
    """Refused before HTTP."""
    assert not tried("TOKEN", token(), strict.target).ok
    assert strict.requests == []


def kubeconfig_for(server: str, user: dict[str, Any] | None = None) -> dict[str, str]:
    """A KUBECONFIG's value."""
    cluster = {"certificate-authority-data": data(authority().pem)}
    return {"kubeconfig": kubeconfig(server, cluster=cluster, user=user)}


def test_a_kubeconfig_with_a_token_is_taken(tls: TLSServer) -> None:
    """Its own server where no target is named, or the same one."""
    secret = kubeconfig_for(tls.target, {"token": TOKEN})

    assert tried("KUBECONFIG", secret, "").ok
    assert tried("KUBECONFIG", secret, tls.target + "/").ok
    with pytest.raises(BadInput, match="where no context"):
        tried("KUBECONFIG", secret, "https://127.0.0.1:1")


def test_a_kubeconfig_with_a_certificate_is_taken(strict: TLSServer) -> None:
    """As kubeadm writes it."""
    user = {
        "client-certificate-data": data(client_certificate()),
        "client-key-data": data(key_pem("p256")),
    }

    result = tried("KUBECONFIG", kubeconfig_for(strict.target, user), "")

    assert result.ok
    assert "client certificate of context lab-jane" in result.detail


def test_a_kubeconfig_is_no_way_inside(tls: TLSServer) -> None:
    """Its server is an address that a user names, like any other."""
    with pytest.raises(OutboundRefused):
        connection_tests.test("KUBECONFIG", kubeconfig_for(tls.target, {"token": TOKEN}), "")


# S3


@pytest.fixture(scope="module")
def s3() -> Iterator[SeaweedFS]:
    """An S3 store with the bucket `lab`."""
    with server_folder("seaweedfs") as folder, running(SeaweedFS(folder)) as server:
        address = server.target.removeprefix("s3://")
        Minio(address, *OWNER, secure=False).make_bucket("lab")
        yield server


def access_key(pair: tuple[str, str]) -> dict[str, str]:
    """An ACCESS_KEY's value."""
    return {"access_key_id": pair[0], "secret_access_key": pair[1]}


@pytest.mark.parametrize(
    ("pair", "bucket", "ok", "says"),
    [
        (OWNER, "", True, "may list its buckets"),
        (OWNER, "lab", True, "may list the bucket lab"),
        (READER, "lab", True, "may list the bucket lab"),
        (READER, "other", False, "(AccessDenied)"),
        (OWNER, "other", False, "no bucket of this name"),
        ((OWNER[0], READER[1]), "lab", False, "not that of this key's id"),
        (("AKIANOBODY", OWNER[1]), "", False, "does not know this key's id"),
    ],
)
def test_access_keys(
    s3: SeaweedFS, pair: tuple[str, str], bucket: str, ok: bool, says: str
) -> None:
    """What the store says of the key, in words."""
    target = f"{s3.target}/{bucket}?secure=false"

    result = tried("ACCESS_KEY", access_key(pair), target)

    assert (result.ok, says in result.detail) == (ok, True), result.detail


def test_a_store_without_tls_where_tls_is_spoken(s3: SeaweedFS, tls: TLSServer) -> None:
    """Both ways round, and the certificate's authority."""
    plain = tried("ACCESS_KEY", access_key(OWNER), f"{s3.target}/lab")
    other = tried("ACCESS_KEY", access_key(OWNER), tls.target.replace("https", "s3"))
    known = tried(
        "ACCESS_KEY",
        {**access_key(OWNER), "ca": authority().pem},
        tls.target.replace("https", "s3") + "/moved-bucket",
    )

    assert not (plain.ok or other.ok or known.ok)
    assert "does not speak TLS" in plain.detail
    assert "certificate was not accepted" in other.detail
    assert "does not speak S3" in known.detail


def test_plain_http_needs_the_operators_word() -> None:
    """A public address is not spoken to in the clear."""
    with pytest.raises(OutboundRefused, match="without TLS"):
        tried("ACCESS_KEY", access_key(OWNER), "s3://8.8.8.8:80/lab?secure=false")


@pytest.mark.parametrize(
    "target",
    [
        *("s3://127.0.0.1/UPPER", "s3://127.0.0.1/a/b", "s3://127.0.0.1/x", "s3://127.0.0.1/a..b"),
        *("s3://127.0.0.1:1/lab?secure=maybe", "s3://127.0.0.1/lab?secure=false"),
        *("s3://127.0.0.1:1/lab?region=a%2Fb", "s3://127.0.0.1:1/la%23b", "https://127.0.0.1"),
    ],
)
def test_malformed_stores(target: str) -> None:
    """Named by field and form."""
    with pytest.raises(BadInput) as refusal:
        tried("ACCESS_KEY", access_key(OWNER), target)

    assert (refusal.value.code, refusal.value.field) == ("target_invalid", "target")


# All of them


def values() -> dict[str, tuple[dict[str, str], str]]:
    """A value of each kind, with the scheme that it is tested by."""
    return {
        "SSH_KEY": (dict(kinds.generate("SSH_KEY", username="jane").secret), "ssh"),
        "PASSWORD": ({"username": "jane", "password": "pw-of-jane"}, "ssh"),
        "TOKEN": (token(), "https"),
        "CERTIFICATE": (certificate(), "https"),
        "ACCESS_KEY": (access_key(OWNER), "s3"),
    }


@contextmanager
def bad_server(answer: bytes | None) -> Iterator[int]:
    """A server that says `answer` to everybody, or nothing at all; its port."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)

        def serve() -> None:
            kept = []
            while not ended.is_set():
                try:
                    connection = listener.accept()[0]
                except TimeoutError:
                    continue
                kept.append(connection)
                if answer is not None:
                    connection.sendall(answer)
                    connection.close()
            for connection in kept:
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            thread.join()


@pytest.mark.parametrize("kind", values())
@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\n\r\n", b"\x00" * 4000, b"SSH-2.0-x\r\n" + b"\xff" * 500]
)
def test_servers_that_talk_nonsense(kind: str, answer: bytes) -> None:
    """A sentence, never an exception."""
    secret, scheme = values()[kind]
    with bad_server(answer) as port:
        result = tried(kind, secret, f"{scheme}://127.0.0.1:{port}")

    assert not result.ok
    assert "hung up" in result.detail or "does not speak" in result.detail


@pytest.mark.parametrize("kind", values())
def test_servers_that_say_nothing(kind: str) -> None:
    """The time is bounded, and told."""
    secret, scheme = values()[kind]
    with bad_server(None) as port:
        result = tried(kind, secret, f"{scheme}://127.0.0.1:{port}", seconds=0.7)

    assert not result.ok
    assert result.detail == "Nothing came of it within 0.7 s."
    assert result.took_ms < 8_000


@pytest.mark.parametrize("kind", values())
def test_a_closed_port(kind: str) -> None:
    """What to look at stands in the sentence."""
    secret, scheme = values()[kind]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    result = tried(kind, secret, f"{scheme}://127.0.0.1:{port}")

    assert not result.ok
    assert "the port is closed" in result.detail


@pytest.mark.parametrize("kind", values())
@pytest.mark.parametrize("host", ["127.0.0.1", "169.254.169.254", "[::1]", "[fd00:ec2::254]"])
def test_no_kind_reaches_inside(kind: str, host: str) -> None:
    """Without the operator's word each connection is refused before it is made."""
    secret, scheme = values()[kind]

    with pytest.raises(OutboundRefused):
        connection_tests.test(kind, secret, f"{scheme}://{host}:1")


@pytest.mark.parametrize("kind", values())
def test_another_kinds_scheme(kind: str) -> None:
    """The right form stands in the hint."""
    secret, scheme = values()[kind]
    other = "https" if scheme != "https" else "ssh"

    with pytest.raises(BadInput) as refusal:
        tried(kind, secret, f"{other}://127.0.0.1:1")

    assert f"{scheme}://" in (refusal.value.hint or "")
