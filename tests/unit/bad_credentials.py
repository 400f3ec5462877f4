"""Values that are no credentials: (name, kind, value, code, field). None may be taken."""

from __future__ import annotations

import base64
from typing import Any

from tests.credentials import (
    PASSPHRASE,
    authority,
    client_certificate,
    data,
    key_pem,
    kubeconfig,
    locked_ssh_key,
    ssh_key,
)

INVALID = "credential_invalid"
Case = tuple[str, str, dict[str, Any], str, str]


def _openssh_with_rounds(rounds: int) -> str:
    """An encrypted OpenSSH key that asks for this many bcrypt rounds."""

    def part(content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + content

    options = part(b"s" * 16) + rounds.to_bytes(4, "big")
    body = b"openssh-key-v1\0" + part(b"aes256-ctr") + part(b"bcrypt") + part(options) + b"x" * 64
    return _pem("OPENSSH PRIVATE KEY", body)


def _pem(label: str, body: bytes) -> str:
    return f"-----BEGIN {label}-----\n{base64.b64encode(body).decode()}\n-----END {label}-----\n"


# PBES2 with PBKDF2 of 0x7fffffff iterations behind a long salt; PBES2 with scrypt.
_PBES2 = bytes.fromhex("3081f03081d006092a864886f70d01050d3081c2")
_PBKDF2 = bytes.fromhex("3081a206092a864886f70d01050c308194")
_SLOW = _PBES2 + _PBKDF2 + b"\x04\x81\x88" + b"s" * 136 + bytes.fromhex("02047fffffff")
_SCRYPT = _PBES2 + bytes.fromhex("301d06092b06010401da47040b3010") + b"x" * 40


def ssh_keys() -> list[Case]:
    """SSH_KEY: the wrong file, half of it, a weak or a locked one."""
    good, locked = ssh_key(), locked_ssh_key()
    texts = {
        "words": "not a key",
        "nul": good.replace("\n", "\0\n", 1),
        "escape": good + "\x1b[2J",
        "line separator": good + "\u2028",
        "half a character": good + "\ud800",
        "putty": "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n",
        "public key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBMUKuop0Z4EjaBxXhNsDf4dqQwP18lGVq jane",
        "certificate": client_certificate(),
        "rfc 4716": "---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----\n",
        "no end": good.partition("-----END")[0],
        "no begin": "\n".join(good.splitlines()[1:]),
        "half": good[:120] + "\n-----END OPENSSH PRIVATE KEY-----\n",
        "two keys": good + good,
        "not base64": good.replace("b3Blbn", "b3*lbn"),
        "empty body": _pem("OPENSSH PRIVATE KEY", b""),
        "random body": _pem("OPENSSH PRIVATE KEY", bytes(range(200))),
        "huge length": _pem("OPENSSH PRIVATE KEY", b"openssh-key-v1\0\xff\xff\xff\xff"),
        "rsa label, other body": _pem("RSA PRIVATE KEY", bytes(range(200))),
        "ed448": key_pem("ed448"),
        "curve of coins": key_pem("k256"),
        "long": _pem("PRIVATE KEY", b"x" * 40_000),
        "too long": "x" * 65_537,
        "bcrypt for a year": _openssh_with_rounds(2**31),
        "pbkdf2 for a year": _pem("ENCRYPTED PRIVATE KEY", _SLOW),
        "scrypt": _pem("ENCRYPTED PRIVATE KEY", _SCRYPT),
    }
    cases: list[Case] = [
        (name, "SSH_KEY", {"private_key": text}, INVALID, "private_key")
        for name, text in texts.items()
    ]
    weak = {"rsa 1024": key_pem("rsa1024"), "dsa": key_pem("dsa")}
    weak["rsa 1024, old form"] = key_pem("rsa1024", "TraditionalOpenSSL")
    weak["rsa 1024, openssh"] = key_pem("rsa1024", "OpenSSH")
    cases += [
        (name, "SSH_KEY", {"private_key": text}, "key_weak", "private_key")
        for name, text in weak.items()
    ]
    with_phrase = {
        "wrong passphrase": (locked, "wrong"),
        "passphrase in other case": (locked, PASSPHRASE.upper()),
        "passphrase of an open key": (good, PASSPHRASE),
        "wrong passphrase, pkcs8": (key_pem("p256", "PKCS8", PASSPHRASE), "wrong"),
        "wrong passphrase, old form": (key_pem("p256", "TraditionalOpenSSL", PASSPHRASE), "wrong"),
    }
    cases += [
        (name, "SSH_KEY", {"private_key": text, "passphrase": phrase}, "key_locked", "passphrase")
        for name, (text, phrase) in with_phrase.items()
    ]
    return [
        *cases,
        ("locked", "SSH_KEY", {"private_key": locked}, "key_locked", "private_key"),
        ("nothing", "SSH_KEY", {}, "missing_field", "private_key"),
        ("blank", "SSH_KEY", {"private_key": " \n \n"}, "missing_field", "private_key"),
        ("number", "SSH_KEY", {"private_key": 5}, INVALID, "private_key"),
        ("list", "SSH_KEY", {"private_key": [good]}, INVALID, "private_key"),
        ("misspelt", "SSH_KEY", {"privat_key": good}, "unknown_field", "privat_key"),
        ("a secret as a name", "PASSWORD", {"hunter2-and-more": "ada"}, "unknown_field", "value"),
        *(
            (
                f"user {user!r}",
                "SSH_KEY",
                {"private_key": good, "username": user},
                INVALID,
                "username",
            )
            for user in ("-oProxyCommand=x", "a b", "a;b", "a\nb", "a" * 256, "ä", "$(id)", "a/b")
        ),
    ]


def certificates_to_be() -> list[Case]:
    """SSH_CERTIFICATE: several accounts at once, paths as roles, lives too long."""
    good = {"role": "lab", "principal": "jane", "ttl": "5m"}
    wrong = {
        "principal": ("jane,root", "*", "-jane", "jane root", "", "ja\0ne"),
        "role": ("../root", "a/b", ".hidden", "a b", "", "x" * 200, "a?b"),
        "ttl": ("16m", "1h", "10s", "0s", "-5m", "300", "forever", "1e9h"),
    }
    return [
        (
            f"{name} {text[:20]!r}",
            "SSH_CERTIFICATE",
            {**good, name: text},
            INVALID if text else "missing_field",
            name,
        )
        for name, texts in wrong.items()
        for text in texts
    ]


def words() -> list[Case]:
    """PASSWORD, ACCESS_KEY and TOKEN: blanks, control characters, mixed up, not there."""
    access = {"access_key_id": "AKIAEXAMPLE", "secret_access_key": "wJalrXUtnFEMI/K7MDENG"}
    person = {"username": "jane", "password": "pw"}
    return [
        ("no password", "PASSWORD", {"username": "jane"}, "missing_field", "password"),
        ("empty password", "PASSWORD", {**person, "password": ""}, "missing_field", "password"),
        ("newline", "PASSWORD", {**person, "password": "pw\n"}, INVALID, "password"),
        ("nul", "PASSWORD", {**person, "password": "p\0w"}, INVALID, "password"),
        ("long", "PASSWORD", {**person, "password": "x" * 4097}, INVALID, "password"),
        ("option", "PASSWORD", {**person, "username": "-l"}, INVALID, "username"),
        ("blanks", "PASSWORD", {**person, "username": " jane"}, INVALID, "username"),
        ("no secret", "ACCESS_KEY", {"access_key_id": "A"}, "missing_field", "secret_access_key"),
        ("mixed up", "ACCESS_KEY", {**access, "access_key_id": "a/b+c"}, INVALID, "access_key_id"),
        ("region", "ACCESS_KEY", {**access, "region": "us/../x"}, INVALID, "region"),
        ("inner blank", "ACCESS_KEY", {**access, "secret_access_key": "a b"}, INVALID,
         "secret_access_key"),
        ("bearer", "TOKEN", {"token": "Bearer abc"}, INVALID, "token"),
        ("header", "TOKEN", {"token": "abc\r\nX-Admin: 1"}, INVALID, "token"),
        ("accent", "TOKEN", {"token": "tökèn"}, INVALID, "token"),
        ("only newlines", "TOKEN", {"token": "\n"}, "missing_field", "token"),
        ("ca", "TOKEN", {"token": "abc", "ca": "none"}, INVALID, "ca"),
        ("ca damaged", "TOKEN", {"token": "abc", "ca": _pem("CERTIFICATE", b"x" * 99)}, INVALID,
         "ca"),
    ]  # fmt: skip


def client_certificates() -> list[Case]:
    """CERTIFICATE: of another key, damaged, too many, weak."""
    good = {"certificate": client_certificate(), "private_key": key_pem("p256")}
    return [
        ("other key", "CERTIFICATE", {**good, "private_key": key_pem("p384")}, INVALID,
         "certificate"),
        ("other type", "CERTIFICATE", {**good, "private_key": key_pem("rsa2048")}, INVALID,
         "certificate"),
        ("authority first", "CERTIFICATE",
         {**good, "certificate": authority().pem + good["certificate"]}, INVALID, "certificate"),
        ("damaged", "CERTIFICATE",
         {**good, "certificate": _pem("CERTIFICATE", b"0" * 300)}, INVALID, "certificate"),
        ("a key within", "CERTIFICATE",
         {**good, "certificate": good["certificate"] + good["private_key"]}, INVALID,
         "certificate"),
        ("too many", "CERTIFICATE", {**good, "certificate": good["certificate"] * 11}, INVALID,
         "certificate"),
        ("request", "CERTIFICATE", {**good, "certificate": _pem("CERTIFICATE REQUEST", b"x")},
         INVALID, "certificate"),
        ("weak", "CERTIFICATE",
         {"certificate": client_certificate("rsa1024"), "private_key": key_pem("rsa1024")},
         "key_weak", "private_key"),
        ("no key", "CERTIFICATE", {"certificate": good["certificate"]}, "missing_field",
         "private_key"),
    ]  # fmt: skip


def kubeconfigs() -> list[Case]:
    """KUBECONFIG: programs, files, proxies, no TLS, nothing to hold on to."""
    certificate = data(client_certificate())
    texts = {
        "clusters.lab.server": [
            kubeconfig(server)
            for server in ("http://k8s.example.org", "file:///etc/passwd", "https://u:p@k8s", "k8s")
        ],
        "clusters.lab.insecure-skip-tls-verify": [
            kubeconfig(cluster={"insecure-skip-tls-verify": value}) for value in (True, "false", 1)
        ],
        "clusters.lab.certificate-authority": [kubeconfig(cluster={"certificate-authority": "/x"})],
        "clusters.lab.certificate-authority-data": [
            kubeconfig(cluster={"certificate-authority-data": value})
            for value in ("***", "aGVsbG8=", "", 5)
        ],
        "clusters.lab.proxy-url": [kubeconfig(cluster={"proxy-url": "http://proxy"})],
        "users.jane.exec": [kubeconfig(user={"exec": {"command": "aws"}})],
        "users.jane.auth-provider": [kubeconfig(user={"auth-provider": {"name": "gcp"}})],
        "users.jane.tokenFile": [kubeconfig(user={"tokenFile": "/etc/shadow"})],
        "users.jane.client-key": [kubeconfig(user={"client-key": "/root/.ssh/id_rsa"})],
        "users.jane.client-certificate": [kubeconfig(user={"client-certificate": "/x"})],
        "users.jane.username": [kubeconfig(user={"username": "hunter2-"})],
        "users.jane.password": [kubeconfig(user={"password": "hunter2"})],
        "users.jane.as": [kubeconfig(user={"as": "system:admin", "token": "x"})],
        "users.jane.token": [kubeconfig(user={"token": value}) for value in ("a b", 5, "x\r\ny")],
        "users.jane": [
            kubeconfig(user={"extensions": []}),
            kubeconfig(user={"client-certificate-data": certificate}),
        ],
        "users.jane.client-certificate-data": [
            kubeconfig(
                user={
                    "client-certificate-data": certificate,
                    "client-key-data": data(key_pem(kind)),
                }
            )
            for kind in ("p384", "rsa2048")
        ],
        "contexts.lab-jane.cluster": [
            kubeconfig(contexts=[{"name": "lab-jane", "context": {"cluster": "x", "user": "jane"}}])
        ],
        "contexts.lab-jane.user": [
            kubeconfig(contexts=[{"name": "lab-jane", "context": {"cluster": "lab"}}])
        ],
        "contexts": [kubeconfig(contexts=None), kubeconfig(contexts=[])],
        "contexts[0]": [kubeconfig(contexts=["lab"])],
        "contexts[0].name": [kubeconfig(contexts=[{"name": "a\x1bb", "context": {}}])],
        "clusters": [kubeconfig(clusters={}), kubeconfig(clusters=[{"name": "x"}] * 101)],
        "users[1]": [kubeconfig(users=[{"name": "jane", "user": {"token": "x"}}] * 2)],
        "current-context": [kubeconfig(current="other")],
        "kind": [kubeconfig(kind="Pod"), kubeconfig(apiVersion="v2")],
    }
    cases: list[Case] = [
        (f"{place} {number}", "KUBECONFIG", {"kubeconfig": text}, INVALID, f"kubeconfig.{place}")
        for place, many in texts.items()
        for number, text in enumerate(many)
    ]
    documents = {
        "alias bomb": "a: &a [x]\nb: *a\n",
        "python": "!!python/object/apply:os.system [id]\n",
        "list": "- 1\n",
        "words": "hunter2 is: my: password",
        "two documents": kubeconfig() + "---\na: 1\n",
        "twice the same key": kubeconfig() + "kind: Config\n",
    }
    return cases + [
        (name, "KUBECONFIG", {"kubeconfig": text}, INVALID, "kubeconfig")
        for name, text in documents.items()
    ]


def corpus() -> list[Case]:
    """All of them."""
    return [
        *ssh_keys(),
        *certificates_to_be(),
        *words(),
        *client_certificates(),
        *kubeconfigs(),
    ]
