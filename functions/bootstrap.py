"""One-time links: the first administrator's, and those that set a password; and the page they open.

There is no default account. A link is made at the server's command line (or by an administrator for
a user), is stored as a hash, works once, and ends by itself.
"""

from __future__ import annotations

from typing import Final, Literal
from urllib.parse import quote

from flask import Response, request
from flask_openapi3 import APIBlueprint
from markupsafe import Markup, escape
from peewee import IntegrityError
from pydantic import TypeAdapter, ValidationError

from airavata_scheduler.functions import audit, grants, logins, passwords, proofs, second_factor
from airavata_scheduler.functions.shapes import UserName
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.database import now_ms, transaction
from airavata_scheduler.models.errors import AiravataError, BadInput, Conflict, Gone, NotFound
from airavata_scheduler.models.ids import new_id, new_secret, secret_digest
from airavata_scheduler.models.tables import LoginLink, User

Purpose = Literal["bootstrap", "password"]

BOOTSTRAP_TTL_S: Final = 3600
PASSWORD_TTL_S: Final = 24 * 3600
PREFIX: Final = "asl_"

api = APIBlueprint("bootstrap", __name__, doc_ui=False)


def new_bootstrap_link(config: Configuration) -> str:
    """The address of the page that makes the first administrator; good for one hour, once.

    Raises Conflict if there is an active administrator: then new accounts come from them.
    """
    with transaction():
        if User.select().where(User.is_admin & (User.state == "active")).exists():
            raise Conflict(
                "There is an administrator already.",
                code="already_bootstrapped",
                hint="Lost the password? airavata-scheduler admin password-link USERNAME",
            )
        token = _new_token("bootstrap", None, BOOTSTRAP_TTL_S)
        audit.append("bootstrap_link", "system", "")
    return _address(config, token)


def new_password_link(config: Configuration, username: str) -> str:
    """The address where `username` sets a new password; good for a day, once. Raises NotFound."""
    with transaction():
        user = User.get_or_none(User.name == username)
        if user is None:
            raise NotFound(f"There is no user {username!r}.", code="user_not_found")
        return password_link_of(config, user.id)


def password_link_of(config: Configuration, user_id: str) -> str:
    """As `new_password_link`, by id; earlier links of the user that were not used end.

    Raises Conflict for a service account.
    """
    with transaction():
        if User.select().where((User.id == user_id) & (User.kind == "service")).exists():
            raise Conflict(
                "A service account has no password.",
                code="service_account",
                hint="Make a token for it: airavata user tokens create NAME --user SERVICE",
            )
        LoginLink.delete().where(
            (LoginLink.user_id == user_id) & LoginLink.used_at.is_null()
        ).execute()
        token = _new_token("password", user_id, PASSWORD_TTL_S)
        audit.append("password_link", "user", user_id)
    return _address(config, token)


def make_administrator(
    token: str, *, username: str, password: str, email: str = "", full_name: str = ""
) -> str:
    """Use up a bootstrap link; the id of the new administrator.

    Raises Gone for a link that is wrong, used or ended, BadInput for a weak password or a taken
    name.
    """
    passwords.check_policy(password, username=username)
    password_hash = passwords.hashed(password)
    user_id = new_id()
    with transaction():
        _use(token, "bootstrap")
        now = now_ms()
        try:
            User.insert(
                id=user_id,
                name=username,
                email=email,
                full_name=full_name,
                password_hash=password_hash,
                is_admin=True,
                created_at=now,
                updated_at=now,
            ).execute()
        except IntegrityError:
            raise name_taken("user", username, "username") from None
        grants.user_changed(user_id)
        audit.append("bootstrap", "user", user_id, actor_id=user_id)
    return user_id


def set_password(token: str, password: str, code: str | None) -> str:
    """Use up a password link, end the user's logins; the user's id.

    `code` is the second factor's, where there is one. Raises Gone or BadInput, and as
    `proofs.check_link_code`: then the link is not used up.
    """
    found = user_of_link(token)
    if found is not None:
        proofs.check_link_code(found, code)
    with transaction():
        link = _use(token, "password")
        user = User.get_by_id(link.user_id)
        if user.state != "active":
            raise _ended()
        passwords.check_policy(password, username=user.name)
        store_password(user.id, password)
        logins.revoke_logins(user.id)
        audit.append("password_set", "user", user.id, actor_id=user.id)
    return str(user.id)


def user_of_link(token: str) -> User | None:
    """Whose password a link would set; None for one that is wrong, used or ended."""
    found: User | None = (
        User.select()
        .join(LoginLink, on=LoginLink.user_id == User.id)
        .where(
            (LoginLink.token_hash == secret_digest(token))
            & (LoginLink.purpose == "password")
            & LoginLink.used_at.is_null()
            & (LoginLink.expires_at > now_ms())
        )
        .first()
    )
    return found


def store_password(user_id: str, password: str) -> None:
    """Hash and store a password that passed the policy."""
    User.update(
        password_hash=passwords.hashed(password), version=User.version + 1, updated_at=now_ms()
    ).where(User.id == user_id).execute()


def name_taken(kind: str, name: str, field: str = "name") -> Conflict:
    """The error for a name that another object has."""
    return Conflict(
        f"There is a {kind} called {name!r} already.",
        code="name_taken",
        field=field,
        hint="Choose another name.",
    )


def _new_token(purpose: Purpose, user_id: str | None, ttl_s: int) -> str:
    token = new_secret(PREFIX)
    now = now_ms()
    LoginLink.insert(
        token_hash=secret_digest(token),
        user_id=user_id,
        purpose=purpose,
        expires_at=now + ttl_s * 1000,
        created_at=now,
    ).execute()
    return token


def _use(token: str, purpose: Purpose) -> LoginLink:
    """Mark the link as used, if it may be; two requests at once cannot both succeed."""
    token_hash = secret_digest(token)
    used = (
        LoginLink.update(used_at=now_ms())
        .where(
            (LoginLink.token_hash == token_hash)
            & (LoginLink.purpose == purpose)
            & LoginLink.used_at.is_null()
            & (LoginLink.expires_at > now_ms())
        )
        .execute()
    )
    if not used:
        raise _ended()
    found: LoginLink = LoginLink.get_by_id(token_hash)
    return found


def _ended() -> Gone:
    return Gone(
        "This link is wrong, has ended, or was used already.",
        code="link_ended",
        hint="Ask for a new one (operators: airavata-scheduler admin --help).",
    )


def _address(config: Configuration, token: str) -> str:
    return f"{config.public_url.rstrip('/')}/bootstrap?token={quote(token)}"


# The page: one form, no script. The token stays in the form; the referrer policy keeps it from
# leaving.

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:26rem;margin:4rem auto;padding:0 1rem}"
    "label{display:block;margin:1rem 0 .25rem}input{width:100%;font:inherit;padding:.4rem}"
    "input,button{box-sizing:border-box}button{margin-top:1.5rem;font:inherit;padding:.5rem 1rem}"
    ".error{color:#a00000}"
)
_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'"
)
_USER_NAME = TypeAdapter(UserName)


@api.get("/bootstrap", doc_ui=False)
def form() -> Response:
    """Show the form that the link opens."""
    token = request.args.get("token", "")
    purpose = _purpose(token)
    if purpose is None:
        return _page(_ended().detail, Markup(), status=410)
    return _page("", _form(token, purpose))


@api.post("/bootstrap", doc_ui=False)
def submit() -> Response:
    """Take the form: make the account, or set the password."""
    token = request.form.get("token", "")
    password = request.form.get("password", "")
    purpose = _purpose(token)
    if purpose is None:
        return _page(_ended().detail, Markup(), status=410)
    try:
        if password != request.form.get("again", ""):
            raise BadInput("The two passwords differ.", field="again")
        if purpose == "bootstrap":
            make_administrator(token, username=_form_username(), password=password)
        else:
            set_password(token, password, request.form.get("code") or None)
    except AiravataError as error:
        return _page(error.detail, _form(token, purpose), status=error.status)
    return _page("", Markup("<p>Done. Now type: <code>airavata auth login</code></p>"))


def _form_username() -> str:
    try:
        return _USER_NAME.validate_python(request.form.get("username", ""))
    except ValidationError:
        raise BadInput(
            "A user name has lower-case letters, digits and . _ - in it, and begins with a letter.",
            field="username",
        ) from None


def _purpose(token: str) -> Purpose | None:
    link = LoginLink.get_or_none(
        (LoginLink.token_hash == secret_digest(token))
        & LoginLink.used_at.is_null()
        & (LoginLink.expires_at > now_ms())
    )
    if link is None:
        return None
    return "bootstrap" if link.purpose == "bootstrap" else "password"


def _form(token: str, purpose: Purpose) -> Markup:
    name, code = Markup(), Markup()
    user = user_of_link(token) if purpose == "password" else None
    if user is not None and second_factor.is_on(user):
        code = Markup(
            '<label for="code">Code of your authenticator, or a recovery code</label>'
            '<input id="code" name="code" autocomplete="one-time-code" required>'
        )
    if purpose == "bootstrap":
        name = Markup(
            '<label for="username">User name</label>'
            '<input id="username" name="username" autocomplete="username" required autofocus>'
        )
    return Markup(
        '<form method="post" action="bootstrap"><input type="hidden" name="token" value="{}">{}'
        '<label for="password">Password (10 characters or more)</label>'
        '<input id="password" name="password" type="password" minlength="10" '
        'autocomplete="new-password" required>'
        '<label for="again">The same again</label>'
        '<input id="again" name="again" type="password" autocomplete="new-password" required>'
        "{}<button>Set</button></form>"
    ).format(token, name, code)


def _page(error: str, content: Markup, *, status: int = 200) -> Response:
    said = Markup('<p class="error">{}</p>').format(error) if error else Markup()
    page = Markup(
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Airavata Scheduler</title>'
        "<style>{}</style><h1>Airavata Scheduler</h1>{}{}</html>"
    ).format(Markup(_STYLE), said, escape(content))  # noqa: S704  a constant of ours
    response = Response(str(page), status=status, mimetype="text/html")
    response.headers["Content-Security-Policy"] = _POLICY
    return response
