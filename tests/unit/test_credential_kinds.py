"""The kinds of credentials: what is taken, what is shown of it, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from airavata_scheduler.backends import credential_kinds as kinds
from airavata_scheduler.models.errors import BadInput
from tests.credentials import (
    PASSPHRASE,
    authority,
    client_certificate,
    data,
    jwt,
    key,
    key_pem,
    kubeconfig,
    locked_ssh_key,
    ssh_key,
)
from tests.unit.bad_credentials import Case, corpus

CORPUS = corpus()


@pytest.mark.parametrize("case", CORPUS, ids=[f"{case[1]}-{case[0]}" for case in CORPUS])
def test_bad_values_are_refused(case: Case) -> None:
    """One BadInput: a stable code, the field, a next step, and nothing of the value itself."""
    _, kind, value, code, field = case

    with pytest.raises(BadInput) as refusal:
        kinds.read(kind, value)

    error = refusal.value
    assert (error.code, error.field) == (code, field)
    assert error.hint
    said = f"{error.detail} {error.hint}"
    assert said.isprintable()
    for text in value.values():
        pieces = [piece for piece in str(text).split() if len(piece) > 20]
        assert not any(piece in said for piece in pieces)
    assert "hunter2" not in said
    assert error.__cause__ is None


def test_the_corpus_is_large() -> None:
    """Every kind stands in it, and no case twice."""
    assert len(CORPUS) >= 80
    assert {case[1] for case in CORPUS} == set(kinds.KINDS)
    assert len({(case[0], case[1], case[4]) for case in CORPUS}) == len(CORPUS)


@pytest.mark.parametrize("algorithm", ["ed25519", "ecdsa-p256", "rsa-3072"])
def test_generated_keys_are_what_openssh_says(algorithm: str, tmp_path: Path) -> None:
    """The public line and fingerprint are those that ssh-keygen derives from the private key."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed here")
    made = kinds.generate("SSH_KEY", algorithm=algorithm, username="jane")
    file = tmp_path / "key"
    file.touch(0o600)
    file.write_text(made.secret["private_key"])

    def keygen(*arguments: str) -> str:
        done = subprocess.run(
            ["ssh-keygen", *arguments, "-f", str(file)], capture_output=True, text=True, check=True
        )
        return done.stdout

    assert keygen("-y").split()[:2] == made.public["public_key"].split()
    assert keygen("-l").split()[:2] == [str(made.public["bits"]), made.public["fingerprint"]]
    assert made.public["username"] == "jane"


@pytest.mark.parametrize("algorithm", ["dsa", "rsa-1024", "", "ED25519"])
def test_other_algorithms_are_not_generated(algorithm: str) -> None:
    """The list is closed."""
    with pytest.raises(BadInput) as refusal:
        kinds.generate("SSH_KEY", algorithm=algorithm)

    assert refusal.value.field == "algorithm"


@pytest.mark.parametrize("kind", [kind for kind in kinds.KINDS if kind != "SSH_KEY"])
def test_what_others_give_out_is_not_generated(kind: str) -> None:
    """A password that no server knows is worth nothing."""
    with pytest.raises(BadInput) as refusal:
        kinds.generate(kind)

    assert refusal.value.code == "credential_not_generated"


@pytest.mark.parametrize("form", ["OpenSSH", "PKCS8", "TraditionalOpenSSL"])
@pytest.mark.parametrize("kind", ["rsa2048", "p256", "p384"])
@pytest.mark.parametrize("passphrase", ["", PASSPHRASE])
def test_every_form_of_a_private_key_is_read(kind: str, form: str, passphrase: str) -> None:
    """The same key gives the same public part in each form; the passphrase is kept with it."""
    value = {"private_key": key_pem(kind, form, passphrase)}
    if passphrase:
        value["passphrase"] = passphrase

    read = kinds.read("SSH_KEY", value)

    plain = kinds.read("SSH_KEY", {"private_key": key_pem(kind)})
    assert read.public["fingerprint"] == plain.public["fingerprint"]
    assert read.public["encrypted"] is bool(passphrase)
    assert read.secret == value


@pytest.mark.parametrize(
    "mangle",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: text.rstrip("\n"),
        lambda text: "\ufeff" + text,
        lambda text: "\n\n" + text + "\n\n",
    ],
)
def test_what_editors_do_to_a_file_is_forgiven(mangle: Any) -> None:
    """It is kept as OpenSSH reads it: lines that end with LF, also the last one."""
    read = kinds.read("SSH_KEY", {"private_key": mangle(ssh_key())})

    assert read.secret["private_key"] == ssh_key()


def test_a_certificate_is_described() -> None:
    """Subject, issuer, names, serial, and its end as the credential's."""
    read = kinds.read(
        "CERTIFICATE",
        {
            "certificate": client_certificate() + authority().pem,
            "private_key": key_pem("p256", "PKCS8", PASSPHRASE),
            "passphrase": PASSPHRASE,
            "ca": authority().pem,
        },
    )

    assert read.public["subject"] == "CN=jane"
    assert read.public["issuer"] == "CN=Test authority"
    assert read.public["san"] == ["jane.example.org"]
    assert read.public["not_after"] == read.expires_at
    assert int(read.public["serial"], 16) > 0
    assert (read.public["key_type"], read.public["bits"]) == ("ECDSA", 256)


def test_names_within_a_certificate_cannot_move_a_terminal() -> None:
    """Control characters of a subject are shown as escapes; NUL would break the database."""
    evil = authority().sign(key("p256").public_key(), "jane\x1b[2J\0x")

    read = kinds.read("CERTIFICATE", {"certificate": evil, "private_key": key_pem("p256")})

    assert read.public["subject"].isprintable()
    assert "jane" in read.public["subject"]


def test_a_kubeconfig_shows_where_it_leads_and_no_token() -> None:
    """Contexts, servers and users; never a token."""
    text = kubeconfig(user={"token": jwt('{"exp": 1900000000}')})

    read = kinds.read("KUBECONFIG", {"kubeconfig": text})

    assert read.public["current_context"] == "lab-jane"
    assert read.public["servers"] == ["https://k8s.example.org:6443"]
    assert read.public["users"] == ["jane"]
    assert read.public["contexts"][0]["namespace"] == "default"
    assert read.expires_at == 1_900_000_000_000
    assert "eyJ" not in json.dumps(read.public)


def test_a_kubeconfig_with_a_certificate_ends_with_it() -> None:
    """The client certificate within is matched with its key, and gives the end."""
    user = {
        "client-certificate-data": data(client_certificate()),
        "client-key-data": data(key_pem("p256", "TraditionalOpenSSL")),
    }
    cluster = {"certificate-authority-data": data(authority().pem)}

    read = kinds.read("KUBECONFIG", {"kubeconfig": kubeconfig(cluster=cluster, user=user)})

    direct = {"certificate": client_certificate(), "private_key": key_pem("p256")}
    assert read.expires_at == kinds.read("CERTIFICATE", direct).expires_at


def test_a_kubeconfig_in_json_is_read() -> None:
    """As `kubectl config view --raw -o json` writes it."""
    text = json.dumps(yaml.safe_load(kubeconfig()))

    assert kinds.read("KUBECONFIG", {"kubeconfig": text}).public["users"] == ["jane"]


@pytest.mark.parametrize(
    ("token", "public", "expires_at"),
    [
        ("short-token", {"jwt": False}, None),
        ("x" * 19, {"jwt": False}, None),
        ("0123456789abcdefWXYZ", {"jwt": False, "last4": "WXYZ"}, None),
        (jwt('{"exp": 1900000000.5}'), {"jwt": True, "last4": "dXJl"}, 1_900_000_000_500),
        (jwt('{"exp": 0}'), {"jwt": True, "last4": "dXJl"}, 0),
    ],
)
def test_what_is_shown_of_a_token(
    token: str, public: dict[str, Any], expires_at: int | None
) -> None:
    """Four characters of a long one, and when it ends."""
    read = kinds.read("TOKEN", {"token": token + "\r\n"})

    assert (read.public, read.expires_at) == (public, expires_at)
    assert read.secret == {"token": token}


@pytest.mark.parametrize(
    "payload",
    [
        '{"exp": "1900000000"}',
        '{"exp": true}',
        '{"exp": NaN}',
        '{"exp": 1e999}',
        '{"exp": -1}',
        '{"exp": 99999999999999999999}',
        '{"exp": null}',
        "[]",
        "{}",
        "[" * 5000,
        "\x00",
    ],
)
def test_a_jwt_that_says_nothing_sensible_has_no_end(payload: str) -> None:
    """It may still be a good token: what it opens is the server's to say."""
    assert kinds.read("TOKEN", {"token": jwt(payload)}).expires_at is None


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_any_printable_token_is_kept_as_it_is(token: str) -> None:
    """And never shown whole."""
    read = kinds.read("TOKEN", {"token": token})

    assert read.secret["token"] == token
    assert token not in json.dumps(read.public) or len(token) < 10


@settings(max_examples=200)
@given(
    st.sampled_from(sorted(kinds.KINDS)),
    st.dictionaries(
        st.sampled_from(sorted({f.name for k in kinds.KINDS.values() for f in k.fields})),
        st.text(max_size=20),
        max_size=4,
    ),
)
def test_no_text_breaks_a_kind(kind: str, value: dict[str, str]) -> None:
    """Whatever is sent: a value, or BadInput."""
    try:
        read = kinds.read(kind, value)
    except BadInput as error:
        assert error.field
        assert error.hint
    else:
        assert set(read.secret) <= {one.name for one in kinds.KINDS[kind].fields}


@given(st.data())
def test_a_damaged_key_is_refused_or_the_same(draw: st.DataObject) -> None:
    """Changing any character of a key's file never ends in anything but BadInput or a key."""
    text = ssh_key()
    at = draw.draw(st.integers(0, len(text) - 1))
    character = draw.draw(st.characters(max_codepoint=0x2FF))

    try:
        read = kinds.read("SSH_KEY", {"private_key": text[:at] + character + text[at + 1 :]})
    except BadInput as error:
        assert error.field == "private_key"
    else:
        assert read.public["bits"] == 256


def test_a_value_never_shows_its_secret() -> None:
    """Neither repr nor str nor a failed comparison in a log."""
    read = kinds.read("PASSWORD", {"username": "jane", "password": "s3cr3t-pw"})

    assert "s3cr3t-pw" not in f"{read!r} {read} {read.public}"
    assert "jane" in repr(read)


def test_access_keys_show_their_id() -> None:
    """And whether they are temporary."""
    value = {"access_key_id": "AKIA1\n", "secret_access_key": "s/e+c==", "session_token": "t"}

    read = kinds.read("ACCESS_KEY", value)

    assert read.public == {"access_key_id": "AKIA1", "temporary": True}
    assert read.secret["access_key_id"] == "AKIA1"


FITS = {
    "SLURM": {"SSH_KEY", "SSH_CERTIFICATE", "PASSWORD"},
    "BARE_METAL": {"SSH_KEY", "SSH_CERTIFICATE", "PASSWORD"},
    "SFTP": {"SSH_KEY", "SSH_CERTIFICATE", "PASSWORD"},
    "KUBERNETES": {"KUBECONFIG", "TOKEN", "CERTIFICATE"},
    "S3": {"ACCESS_KEY"},
    "NFS": set(),
    "unheard of": set(),
}


@pytest.mark.parametrize("resource", FITS)
def test_which_kinds_open_which_resource(resource: str) -> None:
    """The whole table."""
    assert {kind for kind in kinds.KINDS if kinds.fits(kind, resource)} == FITS[resource]


def test_unknown_kinds() -> None:
    """A near miss is told; nothing fits."""
    with pytest.raises(BadInput) as refusal:
        kinds.read("SSH-KEY", {})

    assert refusal.value.code == "credential_kind_unknown"
    assert "SSH_KEY" in refusal.value.detail
    assert not kinds.fits("SSH-KEY", "SLURM")


def test_each_kind_has_a_sentence() -> None:
    """For the page and for help."""
    for kind in kinds.KINDS:
        assert kinds.sentence(kind).endswith(".")
    assert locked_ssh_key() != ssh_key()
