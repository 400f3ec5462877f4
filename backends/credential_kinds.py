"""What a credential is: its seven kinds, what each is made of, and which resources each opens.

`read` turns what a user sent into a `Value`: the secret as it is kept, the public part derived from
it, and when it ends. A new kind is one class with `name`, `opens`, `schemes`, `fields` and `read`,
and its place in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airavata_scheduler.backends import client_certificates, jwt_facts
from airavata_scheduler.backends.credential_fields import Field, Kind, Value, checked, invalid
from airavata_scheduler.backends.kubeconfig import Kubeconfig
from airavata_scheduler.backends.private_keys import read_private_key
from airavata_scheduler.backends.ssh_kinds import SSHCertificateRole, SSHKey, generate_ssh_key
from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.faults import shown_key, suggestion

SHOWN_CHARS = 4
SHOWN_OF_CHARS = 20  # of a shorter token four characters would be too much


_AUTHORITY = Field(
    name="ca",
    meaning="the authority that signed the server's certificate, in PEM, if private.",
    required=False,
    lines=True,
)


class Password(Kind):
    """A user name and password, for SSH servers that take nothing better."""

    name = "PASSWORD"
    opens = frozenset({"SLURM", "BARE_METAL", "SFTP"})
    schemes = ("ssh",)
    fields = (
        Field(name="username", meaning="the account on the server."),
        Field(name="password", meaning="the password.", secret=True),
    )

    @classmethod
    def read(cls, value: Mapping[str, str]) -> Value:
        """The value; public is the user name. Raises BadInput."""
        clean = checked(cls.fields, value)
        name = clean["username"]
        if name != name.strip() or name.startswith("-") or len(name) > 255:
            hint = "Write it as the server knows it, without blanks around it or a leading -."
            raise invalid("username", "is no account name", hint)
        return Value(secret=clean, public={"username": name})


class AccessKey(Kind):
    """An access key of an S3 store: its id and its secret."""

    name = "ACCESS_KEY"
    opens = frozenset({"S3"})
    schemes = ("s3",)
    fields = (
        Field(name="access_key_id", meaning="the key's id.", token=True),
        Field(name="secret_access_key", meaning="the key's secret.", secret=True, token=True),
        Field(
            name="session_token",
            meaning="the session token of a temporary key.",
            secret=True,
            required=False,
            token=True,
        ),
        Field(name="region", meaning="the region, where it matters.", required=False, token=True),
        _AUTHORITY,
    )

    @classmethod
    def read(cls, value: Mapping[str, str]) -> Value:
        """The value; public are the key's id and the region. Raises BadInput."""
        clean = checked(cls.fields, value)
        if len(clean["access_key_id"]) > 128 or "/" in clean["access_key_id"]:
            hint = "The id is the shorter one of the two; the secret goes into secret_access_key."
            raise invalid("access_key_id", "is no id of an access key", hint)
        region = clean.get("region", "")
        if region and not region.replace("-", "").isalnum():
            raise invalid("region", "is no region", "Write it as us-east-1, or leave it out.")
        if "ca" in clean:
            client_certificates.check_authority("ca", clean["ca"])
        public: dict[str, Any] = {"access_key_id": clean["access_key_id"]}
        if region:
            public["region"] = region
        return Value(secret=clean, public={**public, "temporary": "session_token" in clean})


class Token(Kind):
    """A bearer token for an HTTPS service, such as a Kubernetes service account's."""

    name = "TOKEN"
    opens = frozenset({"KUBERNETES"})
    schemes = ("https",)
    is_sent = True
    fields = (
        Field(name="token", meaning="the token, without Bearer.", secret=True, token=True),
        _AUTHORITY,
    )

    @classmethod
    def read(cls, value: Mapping[str, str]) -> Value:
        """The value; public are the last characters of a long token. Raises BadInput."""
        clean = checked(cls.fields, value)
        token = clean["token"]
        ends = jwt_facts.expires_at(token)
        public: dict[str, Any] = {"jwt": ends is not None}
        if len(token) >= SHOWN_OF_CHARS:
            public["last4"] = token[-SHOWN_CHARS:]
        if "ca" in clean:
            client_certificates.check_authority("ca", clean["ca"])
        return Value(secret=clean, public=public, expires_at=ends)


class ClientCertificate(Kind):
    """A client certificate and its private key, for servers that want TLS from both ends."""

    name = "CERTIFICATE"
    opens = frozenset({"KUBERNETES"})
    schemes = ("https",)
    fields = (
        Field(
            name="certificate",
            meaning="the certificate in PEM, its chain behind it.",
            lines=True,
        ),
        Field(name="private_key", meaning="the private key in PEM.", secret=True, lines=True),
        Field(
            name="passphrase",
            meaning="the passphrase, where the key is encrypted.",
            secret=True,
            required=False,
        ),
        _AUTHORITY,
    )

    @classmethod
    def read(cls, value: Mapping[str, str]) -> Value:
        """The value; public is what the certificate says. Raises BadInput."""
        clean = checked(cls.fields, value)
        key = read_private_key("private_key", clean["private_key"], clean.get("passphrase"))
        facts = client_certificates.of_key("certificate", clean["certificate"], key)
        if "ca" in clean:
            client_certificates.check_authority("ca", clean["ca"])
        public = {**facts, "encrypted": "passphrase" in clean}
        return Value(secret=clean, public=public, expires_at=facts["not_after"])


KINDS: dict[str, type[Kind]] = {
    kind.name: kind
    for kind in (
        SSHKey,
        SSHCertificateRole,
        Password,
        AccessKey,
        Token,
        Kubeconfig,
        ClientCertificate,
    )
}


def kind_named(kind: str) -> type[Kind]:
    """The class of a kind. Raises BadInput where there is none of that name."""
    found = KINDS.get(kind)
    if found is None:
        raise BadInput(
            f"{shown_key(kind)} is no kind of credential{suggestion(str(kind), KINDS)}",
            code="credential_kind_unknown",
            field="kind",
            hint=f"The kinds are {', '.join(KINDS)}.",
        )
    return found


def sentence(kind: str) -> str:
    """What a kind is, for documentation and help."""
    return (kind_named(kind).__doc__ or "").strip().splitlines()[0]


def read(kind: str, value: Mapping[str, str]) -> Value:
    """The value of a credential of this kind, checked, with its public part derived.

    Raises BadInput whose `field` is the field of `value` that is wrong.
    """
    return kind_named(kind).read(value)


def generate(kind: str, *, algorithm: str = "ed25519", username: str = "") -> Value:
    """A new value: an SSH_KEY of `ed25519`, `ecdsa-p256` or `rsa-3072`. Raises BadInput."""
    if kind_named(kind).name != SSHKey.name:
        raise BadInput(
            f"A credential of kind {kind} is given out by the system that it opens.",
            code="credential_not_generated",
            field="kind",
            hint="Only SSH_KEY is made here; for the others send the value that you were given.",
        )
    return generate_ssh_key(algorithm, username)


def fits(kind: str, resource_kind: str) -> bool:
    """Whether a credential of this kind opens resources of that kind."""
    found = KINDS.get(kind)
    return found is not None and resource_kind in found.opens
