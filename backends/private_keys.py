"""Private keys as people paste them: read, unlocked, and refused where they are weak.

OpenSSH's own form, PKCS#8, and the older PEM forms of OpenSSL are read. A key that asks for an
absurd amount of work before it opens (bcrypt rounds, PBKDF2 iterations, scrypt, a huge modulus) is
refused before that work is done.
"""

from __future__ import annotations

import base64
import binascii
import re

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

from airavata_scheduler.backends.credential_fields import invalid
from airavata_scheduler.models.errors import BadInput

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192
MAX_KEY_BYTES = 16 * 1024
MAX_BCRYPT_ROUNDS = 256  # ssh-keygen writes 24; 256 take about two seconds
MAX_ITERATIONS = 2_000_000
CURVES = ("secp256r1", "secp384r1", "secp521r1")

_MAKE_ONE = "Make a new key, for example: ssh-keygen -t ed25519"
_BEGIN = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\n")
_SCRYPT = bytes.fromhex("2b06010401da47040b")  # its object identifier in DER, without the tag


def read_private_key(name: str, text: str, passphrase: str | None = None) -> PrivateKey:
    """The key that the clean text of field `name` holds.

    Raises BadInput: `credential_invalid` for what is no usable key, `key_locked` where the
    passphrase is missing, wrong or not needed, `key_weak` for a key that is too weak.
    """
    label = _label(name, text)
    locked = _is_locked(name, label, text)
    if locked and not passphrase:
        hint = "Send its passphrase in the field passphrase, or remove it: ssh-keygen -p -f FILE"
        raise invalid(name, "is encrypted and its passphrase is missing", hint, "key_locked")
    if passphrase and not locked:
        hint = "Leave the field passphrase out."
        raise invalid("passphrase", "is given for a key that has none", hint, "key_locked")
    secret = passphrase.encode() if passphrase else None
    key = _opened(name, label, text, secret)
    return _strong(name, key)


def _label(name: str, text: str) -> str:
    """What the PEM text says it is."""
    if text.startswith("PuTTY-User-Key-File-"):
        hint = "Convert it: puttygen FILE.ppk -O private-openssh -o FILE"
        raise invalid(name, "is in PuTTY's form, which is not read", hint)
    if re.match(r"(ssh|ecdsa|sk)-[a-z0-9@.-]+ AAAA", text):
        hint = "Send the file without .pub; the public key is derived from it."
        raise invalid(name, "is a public key or a certificate, not a private key", hint)
    found: list[str] = _BEGIN.findall(text)
    labels = [label for label in found if label not in ("EC PARAMETERS",)]
    if not labels:
        hint = "It begins with a line -----BEGIN … PRIVATE KEY-----; send the whole file."
        raise invalid(name, "is no PEM text", hint)
    if len(labels) > 1 or f"-----END {labels[0]}-----" not in text:
        hint = "Send the whole file, from its BEGIN to its END line, and nothing else."
        raise invalid(name, "is cut off, or holds more than one key", hint)
    if not labels[0].endswith("PRIVATE KEY"):
        hint = "Send the private key's file; it begins with -----BEGIN … PRIVATE KEY-----."
        raise invalid(name, f"holds a {labels[0].lower()}, not a private key", hint)
    if len(text) > MAX_KEY_BYTES:
        raise invalid(name, f"is longer than {MAX_KEY_BYTES // 1024} KiB", _MAKE_ONE)
    return labels[0]


def _is_locked(name: str, label: str, text: str) -> bool:
    """Whether the key is encrypted; raises BadInput where opening it would take absurdly long."""
    if label == "OPENSSH PRIVATE KEY":
        return _openssh_is_locked(name, _body(name, text))
    if label == "ENCRYPTED PRIVATE KEY":
        body = _body(name, text)
        if _SCRYPT in body or max(_integers(body), default=0) > MAX_ITERATIONS:
            hint = "Encrypt it in the usual way: openssl pkcs8 -topk8 -v2 aes256 -in FILE"
            raise invalid(name, "asks for too much work before it opens", hint)
        return True
    return "Proc-Type: 4,ENCRYPTED" in text


def _body(name: str, text: str) -> bytes:
    lines = text.partition("PRIVATE KEY-----\n")[2].partition("-----END")[0]
    try:
        return base64.b64decode("".join(lines.split()), validate=True)
    except (binascii.Error, ValueError):
        raise _damaged(name) from None


def _openssh_is_locked(name: str, body: bytes) -> bool:
    """Reads PROTOCOL.key: the magic, then cipher, kdf and its options (salt, rounds)."""
    parts, rest = [], body.removeprefix(b"openssh-key-v1\0")
    for _ in range(3):
        length = int.from_bytes(rest[:4], "big")
        if len(rest) < 4 + length:
            raise _damaged(name)
        parts.append(rest[4 : 4 + length])
        rest = rest[4 + length :]
    if parts[0] == b"none":
        return False
    if int.from_bytes(parts[2][-4:], "big") > MAX_BCRYPT_ROUNDS:
        hint = "Encrypt it again with fewer rounds: ssh-keygen -p -a 24 -f FILE"
        raise invalid(name, "asks for too much work before it opens", hint)
    return True


def _integers(der: bytes) -> list[int]:
    """Every integer of a DER text, however deep: the iterations are among them."""
    found, at = [], 0
    while at + 2 <= len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:
            count = length & 0x7F
            length, at = int.from_bytes(der[at : at + count], "big"), at + count
        if tag == 0x02:
            found.append(int.from_bytes(der[at : at + length], "big"))
        if tag & 0x20 == 0:  # what is not constructed is stepped over
            at += length
    return found


def _opened(name: str, label: str, text: str, passphrase: bytes | None) -> object:
    load = load_ssh_private_key if label == "OPENSSH PRIVATE KEY" else load_pem_private_key
    try:
        return load(text.encode(), passphrase, unsafe_skip_rsa_key_validation=True)
    except UnsupportedAlgorithm:
        raise invalid(name, "is of a type or cipher that is not read", _MAKE_ONE) from None
    except (ValueError, TypeError):
        if passphrase is None:
            raise _damaged(name) from None
        hint = "Try it with: ssh-keygen -y -f FILE"
        fault = "does not open the key, or the key is damaged"
        raise invalid("passphrase", fault, hint, "key_locked") from None


def _damaged(name: str) -> BadInput:
    return invalid(name, "is damaged and cannot be read", "Send the whole file, unchanged.")


def _strong(name: str, key: object) -> PrivateKey:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    if isinstance(key, dsa.DSAPrivateKey):
        raise invalid(name, "is a DSA key, which servers no longer take", _MAKE_ONE, "key_weak")
    if isinstance(key, rsa.RSAPrivateKey):
        return _strong_rsa(name, key)
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in CURVES:
        return key
    raise invalid(name, "is neither RSA, ECDSA (NIST curves) nor Ed25519", _MAKE_ONE)


def _strong_rsa(name: str, key: rsa.RSAPrivateKey) -> rsa.RSAPrivateKey:
    if key.key_size < MIN_RSA_BITS:
        fault = f"is an RSA key of {key.key_size} bits; at least {MIN_RSA_BITS} are needed"
        raise invalid(name, fault, _MAKE_ONE, "key_weak")
    if key.key_size > MAX_RSA_BITS:
        fault = f"is an RSA key of {key.key_size} bits; at most {MAX_RSA_BITS} are read"
        raise invalid(name, fault, _MAKE_ONE)
    try:
        return key.private_numbers().private_key()  # only here are its numbers proved to fit
    except ValueError:
        raise _damaged(name) from None


def type_and_bits(key: PrivateKey | PublicKey) -> tuple[str, int]:
    """What people call the key's type, and its size: ("RSA", 3072), ("Ed25519", 256)."""
    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        return "RSA", key.key_size
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        return "ECDSA", key.curve.key_size
    return "Ed25519", 256
