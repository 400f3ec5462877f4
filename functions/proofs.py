"""What proves who somebody is: a password, and a code beside it. Wrong ones are counted."""

from __future__ import annotations

from flask import request

from airavata_scheduler.functions import audit, login_backoff, passwords, second_factor
from airavata_scheduler.models.database import transaction
from airavata_scheduler.models.errors import BadInput, Unauthenticated
from airavata_scheduler.models.tables import User


def check_login(username: str, password: str, code: str | None) -> User:
    """The active user of this name and password, and of this code where one is needed.

    Raises RateLimited; Unauthenticated `wrong_credentials`, the same for nobody's name,
    `second_factor_required` or `second_factor_wrong`; Unavailable while a code cannot be checked.
    """
    login_backoff.check(username, _address())
    user = User.get_or_none(User.name == username)
    stored = user.password_hash if user is not None and user.state == "active" else None
    if not passwords.matches(password, stored) or user is None or stored is None:
        _failed("login_failed", username, user, "password")
        raise Unauthenticated(
            "The user name or the password is wrong.",
            code="wrong_credentials",
            hint="Ask an administrator for a password link if you forgot it.",
        )
    if second_factor.is_on(user):
        _check_second(user, code)
    login_backoff.succeeded(username, _address())
    if passwords.needs_rehash(stored):
        User.update(password_hash=passwords.hashed(password)).where(User.id == user.id).execute()
    return user


def check_link_code(user: User, code: str | None) -> None:
    """As `check_login`, for a one-time link that stands in for the password."""
    if second_factor.is_on(user):
        login_backoff.check(user.name, _address())
        _check_second(user, code)


def check_password(user: User, password: str, *, field: str) -> None:
    """Return if it is the password of a user who is logged in.

    Raises BadInput `wrong_password`, and RateLimited: a stolen login guesses no faster.
    """
    login_backoff.check(user.name, _address())
    if not passwords.matches(password, user.password_hash):
        _failed("proof_failed", user.name, user, "password")
        raise BadInput("The current password is wrong.", code="wrong_password", field=field)


def check_code(user: User, code: str) -> None:
    """Use up a code of a user who is logged in. Raises WrongCode, and RateLimited."""
    login_backoff.check(user.name, _address())
    if not second_factor.use(user, code):
        _failed("proof_failed", user.name, user, "code")
        raise second_factor.WrongCode


def first_step(user: User, code: str) -> int:
    """The step of a code that switches the second factor on; raises as `check_code`."""
    login_backoff.check(user.name, _address())
    step = second_factor.step_of(user, code)
    if step is None:
        _failed("proof_failed", user.name, user, "code")
        raise second_factor.WrongCode
    return step


def _check_second(user: User, code: str | None) -> None:
    if code is None:
        raise Unauthenticated(
            "This account has a second factor: it takes a code beside the password.",
            code="second_factor_required",
            hint="Type the digits of your authenticator, or a recovery code.",
        )
    if not second_factor.use(user, code):
        _failed("login_failed", user.name, user, "code")
        wrong = second_factor.WrongCode()
        raise Unauthenticated(wrong.detail, code="second_factor_wrong", hint=wrong.hint)


def _failed(action: str, username: str, user: User | None, proof: str) -> None:
    """Count a wrong password or code, and leave an entry of it in the audit.

    Nobody's name leaves one as well, by the same steps, so that the time tells nothing; the name
    itself is not kept, for it may be a password that was typed into the wrong field. The back-off
    bounds how many entries come of guessing: what it refuses is not tried, and leaves none.
    """
    login_backoff.failed(username, _address())
    with transaction():
        audit.append(action, "user", user.id if user is not None else "", proof=proof)


def _address() -> str:
    return request.remote_addr or ""
