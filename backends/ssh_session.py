"""An SSH session for a credential: to a pinned address, to a server whose key is known.

Only what is handed over is used: no agent, no key of the scheduler's own account, no ssh_config, no
ProxyCommand, no known_hosts. The server's key is compared before anything of ours is said; without
a recorded key a password is not sent at all, since whoever stands in between would have it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import paramiko
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from airavata_scheduler.backends.credential_fields import invalid
from airavata_scheduler.backends.outbound import Outbound
from airavata_scheduler.backends.private_keys import read_private_key
from airavata_scheduler.backends.ssh_kinds import Signer, fingerprint, issue
from airavata_scheduler.backends.targets import Target

# It logs each broken connection as an error with a traceback; the user is told in a sentence.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)

_TYPES = {
    "ssh-ed25519": paramiko.Ed25519Key,
    "ssh-rsa": paramiko.RSAKey,
    "ecdsa-sha2-nistp256": paramiko.ECDSAKey,
    "ecdsa-sha2-nistp384": paramiko.ECDSAKey,
    "ecdsa-sha2-nistp521": paramiko.ECDSAKey,
}
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


class NotLoggedIn(Exception):
    """The server was reached, and there is no session; `host_key` is its key where it was seen."""

    def __init__(self, detail: str, host_key: HostKey | None = None) -> None:
        super().__init__(detail)
        self.host_key = host_key


@dataclass(frozen=True)
class HostKey:
    """A server's public key: its type and the base64 of its wire form."""

    type: str
    text: str

    @property
    def line(self) -> str:
        """As known_hosts has it behind the host's name."""
        return f"{self.type} {self.text}"

    @property
    def fingerprint(self) -> str:
        """`SHA256:…`, as ssh shows it."""
        return fingerprint(base64.b64decode(self.text))


@dataclass(frozen=True, kw_only=True)
class Login:
    """Who logs in, and with what: a password or a key."""

    user: str
    how: str
    password: str | None = field(default=None, repr=False)
    key: paramiko.PKey | None = field(default=None, repr=False)


def login(kind: str, secret: Mapping[str, str], target: Target, sign: Signer | None) -> Login:
    """What a credential of one of the SSH kinds logs in with. Raises BadInput without a user."""
    named = secret.get("principal" if kind == "SSH_CERTIFICATE" else "username")
    if named and target.user and named != target.user:
        hint = "Leave the name out of the address, or correct it."
        raise invalid("target", f"names {target.user}, and the credential {named}", hint)
    user = named or target.user
    if not user:
        hint = "Write it as ssh://user@host:22, or give the credential a username."
        raise invalid("target", "names no user", hint)
    if kind == "PASSWORD":
        return Login(user=user, how="password", password=secret["password"])
    if kind == "SSH_CERTIFICATE":
        return _certified(user, secret, sign)
    key = read_private_key("private_key", secret["private_key"], secret.get("passphrase"))
    text = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    return Login(user=user, how="public key", key=_loaded(text))


def _certified(user: str, secret: Mapping[str, str], sign: Signer | None) -> Login:
    if sign is None:
        raise TypeError("an SSH_CERTIFICATE needs the one who signs")
    issued = issue(secret, sign)
    key = _loaded(issued.private_key)
    key.load_certificate(issued.certificate)
    return Login(user=user, how="certificate", key=key)


def _loaded(text: str) -> paramiko.PKey:
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        with contextlib.suppress(paramiko.SSHException):
            return kind.from_private_key(io.StringIO(text))
    raise TypeError("a key that was read is of no type that is known")


def recorded(host_key: str) -> HostKey | str:
    """The recorded key: a line `ssh-ed25519 AAAA…`, or its fingerprint. Raises BadInput."""
    words = host_key.split()
    if len(words) == 1 and _FINGERPRINT.fullmatch(words[0]):
        return words[0]
    with contextlib.suppress(binascii.Error, ValueError):
        if len(words) >= 2 and words[0] in _TYPES:
            inner = base64.b64decode(words[1], validate=True)
            if inner[4 : 4 + len(words[0])] == words[0].encode():
                return HostKey(words[0], words[1])
    hint = "Write it as ssh-ed25519 AAAA…, without the host's name, or as SHA256:…"
    raise invalid("host_key", "is no public key of a host", hint)


@contextlib.contextmanager
def session(
    outbound: Outbound, target: Target, who: Login, host_key: str | None = None
) -> Iterator[tuple[paramiko.Transport, HostKey]]:
    """A session that is logged in, with the server's key.

    Raises NotLoggedIn, or Unreachable and OutboundRefused as `outbound` does.
    """
    expected = recorded(host_key) if host_key else None
    with contextlib.closing(outbound.connect(target.host, target.port)) as connected:
        transport = paramiko.Transport(connected)
        try:
            transport.banner_timeout = transport.auth_timeout = outbound.remaining_s
            found = _greeted(transport, outbound, expected)
            _log_in(transport, who, found, known=expected is not None)
            yield transport, found
        finally:
            transport.close()


def _greeted(
    transport: paramiko.Transport, outbound: Outbound, expected: HostKey | str | None
) -> HostKey:
    """The server's key, which is the expected one where there is one."""
    if isinstance(expected, HostKey):
        signatures = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
        types = signatures.get(expected.type, (expected.type,))
        transport.get_security_options().key_types = types
    try:
        transport.start_client(timeout=outbound.remaining_s)
        key = transport.get_remote_server_key()
    except paramiko.ssh_exception.IncompatiblePeer as error:
        if isinstance(expected, HostKey) and "host key" in str(error):
            raise NotLoggedIn(
                f"the server has no {expected.type} key any more, and that is the recorded one; "
                "find out why before you record another"
            ) from None
        raise NotLoggedIn("the server speaks no method that is still safe") from None
    except (paramiko.SSHException, EOFError, OSError):
        raise NotLoggedIn("what answers there does not speak SSH, or hung up") from None
    found = HostKey(key.get_name(), key.get_base64())
    if expected is not None and expected not in (found, found.fingerprint):
        was = expected if isinstance(expected, str) else expected.fingerprint
        raise NotLoggedIn(
            f"the server's key is {found.fingerprint}, and {was} is recorded: nothing was sent; "
            "ask its administrator whether the key was changed before you record the new one",
            found,
        )
    return found


def _log_in(transport: paramiko.Transport, who: Login, found: HostKey, *, known: bool) -> None:
    if who.password is not None and not known:
        raise NotLoggedIn(
            f"the server's key {found.fingerprint} is not recorded, so the password was not sent; "
            "compare the key with what its administrator says, record it, and test again",
            found,
        )
    try:
        left = (
            transport.auth_password(who.user, who.password or "")
            if who.key is None
            else transport.auth_publickey(who.user, who.key)
        )
    except paramiko.BadAuthenticationType as error:
        takes = ", ".join(sorted(set(error.allowed_types) & _METHODS)) or "none of ours"
        raise NotLoggedIn(
            f"the server takes no {who.how} for {who.user} (it takes {takes})", found
        ) from None
    except paramiko.AuthenticationException:
        raise NotLoggedIn(f"the server refused {who.user} with this {who.how}", found) from None
    except (paramiko.SSHException, EOFError, OSError):
        raise NotLoggedIn("the server hung up during the login", found) from None
    if left or not transport.is_authenticated():
        raise NotLoggedIn(
            f"the server took the {who.how} of {who.user} and wants a second factor, which a "
            "program cannot give",
            found,
        )


_METHODS = {"publickey", "password", "keyboard-interactive", "hostbased", "gssapi-with-mic"}
