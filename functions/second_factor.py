"""The second factor of a password: six digits that change every thirty seconds (TOTP, RFC 6238).

The secret is kept wrapped by OpenBao's transit key. While OpenBao is away nobody with a second
factor logs in by password: `Unavailable`, never a login without the factor. Each step's digits work
once; ten recovery codes stand in for a lost device, each once.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets as random
import time
from typing import Final

import pyotp

from airavata_scheduler.backends.openbao import secrets
from airavata_scheduler.functions import audit
from airavata_scheduler.models.database import now_ms, transaction
from airavata_scheduler.models.errors import BadInput, Conflict
from airavata_scheduler.models.ids import secret_digest
from airavata_scheduler.models.tables import RecoveryCode, User

ISSUER: Final = "Airavata Scheduler"
STEP_S: Final = 30
RECOVERY_CODES: Final = 10
_LEEWAY_STEPS: Final = 1  # clocks of phones, and the time that typing takes
_RECOVERY_BYTES: Final = 10  # 80 random bits: a leaked digest cannot be searched


class WrongCode(BadInput):
    """The code is wrong, or was used already."""

    code = "second_factor_wrong"

    def __init__(self) -> None:
        super().__init__(
            field="code",
            hint="Wait for the next one; a recovery code takes a lost device's place.",
        )


def is_on(user: User) -> bool:
    """Whether a password of this user is not enough."""
    return user.totp_since is not None


def new_secret(user: User) -> tuple[str, str]:
    """A new secret and the same wrapped, for `start`; asks OpenBao."""
    secret = pyotp.random_base32()
    return secret, secrets().wrap(secret.encode(), _context(user.id))


def uri(user: User, secret: str) -> str:
    """The `otpauth:` address of a secret, for a QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=user.name, issuer_name=ISSUER)


def start(user: User, wrapped: str) -> None:
    """Keep a new secret that waits for its first code.

    Raises Conflict where a second factor is on, or there is no password that it could stand beside.
    """
    if user.password_hash is None:
        raise Conflict(
            "You have no password that a second factor could stand beside.",
            code="no_password",
            hint="You log in elsewhere: switch the second factor on there.",
        )
    changed = (
        User.update(totp=wrapped, totp_step=None)
        .where((User.id == user.id) & User.totp_since.is_null())
        .execute()
    )
    if not changed:
        raise Conflict(
            "The second factor is on already.",
            code="second_factor_on",
            hint="Switch it off first: airavata user totp disable",
        )
    audit.append("second_factor_started", "user", user.id)


def confirm(user: User, step: int) -> list[str]:
    """Switch the second factor on with its first code's step; the recovery codes, shown once.

    Raises Conflict where none waits for its first code.
    """
    now = now_ms()
    changed = (
        User.update(totp_since=now, totp_step=step)
        .where((User.id == user.id) & (User.totp == user.totp) & User.totp_since.is_null())
        .execute()
    )
    if not changed:
        raise not_started()
    codes = [_new_recovery_code() for _ in range(RECOVERY_CODES)]
    RecoveryCode.delete().where(RecoveryCode.user_id == user.id).execute()
    RecoveryCode.insert_many(
        [
            {"user_id": user.id, "code_hash": secret_digest(_plain(made)), "created_at": now}
            for made in codes
        ]
    ).execute()
    audit.append("second_factor_on", "user", user.id)
    return codes


def use(user: User, code: str) -> bool:
    """Whether `code` is right: digits of a step that was not used yet, or a recovery code.

    A right one is used up. Raises Unavailable while OpenBao is away and digits were given.
    """
    if not re.fullmatch(r"[0-9 ]*", code):
        return _use_recovery_code(user, code)
    step = step_of(user, code)
    if step is None:
        return False
    used = (
        User.update(totp_step=step)
        .where(
            (User.id == user.id)
            & (User.totp == user.totp)
            & (User.totp_step.is_null() | (User.totp_step < step))
        )
        .execute()
    )
    return bool(used)


def switch_off(user_id: str, action: str) -> bool:
    """Forget the second factor and its recovery codes; whether there was one."""
    with transaction():
        changed = (
            User.update(totp=None, totp_since=None, totp_step=None)
            .where((User.id == user_id) & User.totp.is_null(False))
            .execute()
        )
        RecoveryCode.delete().where(RecoveryCode.user_id == user_id).execute()
        if changed:
            audit.append(action, "user", user_id)
    return bool(changed)


def rewrap_all() -> int:
    """Wrap every kept secret by the newest version of the transit key; how many.

    For after a rotation of the key, outside a request; a secret that changes meanwhile is new
    anyway. Raises Unavailable.
    """
    kept = User.select(User.id, User.totp).where(User.totp.is_null(False))
    return sum(
        User.update(totp=secrets().rewrap_text(str(user.totp)))
        .where((User.id == user.id) & (User.totp == user.totp))
        .execute()
        for user in list(kept)
    )


def codes_left(user_id: str) -> int:
    """How many recovery codes were not used yet."""
    return int(
        RecoveryCode.select()
        .where((RecoveryCode.user_id == user_id) & RecoveryCode.used_at.is_null())
        .count()
    )


def not_started() -> Conflict:
    """The error for a code where no second factor waits for its first one."""
    return Conflict(
        "No second factor waits for its first code.",
        code="second_factor_not_started",
        hint="Start with: airavata user totp enable",
    )


def step_of(user: User, code: str) -> int | None:
    """Which step of now, the one before and the next one has these digits, if any."""
    if user.totp is None:
        return None
    totp = pyotp.TOTP(secrets().unwrap(user.totp, _context(user.id)).decode())
    digits, now = code.replace(" ", ""), int(time.time()) // STEP_S
    for step in range(now - _LEEWAY_STEPS, now + _LEEWAY_STEPS + 1):
        if hmac.compare_digest(totp.generate_otp(step).encode(), digits.encode()):
            return step
    return None


def _use_recovery_code(user: User, code: str) -> bool:
    with transaction():
        used = (
            RecoveryCode.update(used_at=now_ms())
            .where(
                (RecoveryCode.user_id == user.id)
                & (RecoveryCode.code_hash == secret_digest(_plain(code)))
                & RecoveryCode.used_at.is_null()
            )
            .execute()
        )
        if used:
            audit.append("recovery_code_used", "user", user.id, actor_id=user.id)
    return bool(used)


def _new_recovery_code() -> str:
    text = base64.b32encode(random.token_bytes(_RECOVERY_BYTES)).decode("ascii").lower()
    return "-".join(text[at : at + 4] for at in range(0, len(text), 4))


def _plain(code: str) -> str:
    """A recovery code as it is compared: people leave out dashes, or write capitals."""
    return re.sub(r"[\s-]", "", code).lower()


def _context(user_id: str) -> str:
    return f"user-totp:{user_id}"
