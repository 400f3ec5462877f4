"""What an access token may be used for: a few named scopes, derived from a route's path.

A login may do whatever its user may. A token may do less: each route belongs to one scope by the
noun in its path, and `read` stands for every GET (but for a credential's value). Whatever would let
a stolen token outlive its owner's notice (tokens, passwords, second factors, logins, new
administrators) is refused to tokens, whatever their scopes are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, Literal, get_args

from airavata_scheduler.functions import principals
from airavata_scheduler.functions.principals import Principal
from airavata_scheduler.functions.route_table import ROUTES
from airavata_scheduler.models.errors import Forbidden

Scope = Literal["read", "work", "resources", "credentials", "projects", "account", "admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

# The first rule that fits a route decides. A new noun needs its line here.
_BY_PATH: Final[tuple[tuple[str, Scope], ...]] = (
    (r"/projects/\{project\}/blobs/.*", "work"),
    (r"/(compute|storage)-resources/\{resource\}/credentials.*", "credentials"),
    (r"/(auth|users/me)(/.*)?", "account"),
    (r"/(users|audit|system)(/.*)?", "admin"),
    (r"/(projects|groups)(/.*)?", "projects"),
    (r"/(compute-resources|storage-resources|agents)(/.*)?", "resources"),
    (r"/credentials?(-[a-z]+)?(/.*)?", "credentials"),
    (r"/(functions|calls|experiments|tasks|artifacts|blobs|data)(/.*)?", "work"),
    (r"/permissions(/.*)?", "read"),  # asking what one may do changes nothing
)
# A token may always ask whose it is.
_ALWAYS: Final = frozenset({"GET /api/v1/auth/status", "GET /api/v1/users/me"})
_SECRET: Final = re.compile(r"GET /api/v1/credentials/\{credential\}/(value|reveal|secret).*")
# How one comes to hold a password, a token, a second factor or a login. Reading lists of them is
# not among it.
_LOGIN_ONLY: Final = re.compile(
    r"(POST|PUT|PATCH|DELETE) /api/v1/"
    r"(auth/.*|users/me/(password|tokens|totp).*"
    r"|users/\{user\}/(password-link|tokens|totp).*)"
)


def scope_of(name: str) -> Scope:
    """The scope of a users' route such as `GET /api/v1/projects/{project}`.

    Raises LookupError for a path that no rule fits.
    """
    path = name.partition(" ")[2].removeprefix("/api/v1")
    for pattern, scope in _BY_PATH:
        if re.fullmatch(pattern, path):
            return scope
    raise LookupError(f"{name} has no scope: add its noun to functions/scopes.py")


SCOPE_OF: Final[Mapping[str, Scope]] = {
    name: scope_of(name) for name, rule in ROUTES.items() if rule.who == "user"
}
LOGIN_ONLY: Final = frozenset(name for name in SCOPE_OF if _LOGIN_ONLY.fullmatch(name))


def check(principal: Principal, name: str) -> None:
    """Return if the principal's token, if it is one, has the scope of the route called `name`.

    Raises Forbidden: `login_required`, or `scope_missing` naming the scope.
    """
    if principal.scopes is None or name in _ALWAYS:
        return
    if name in LOGIN_ONLY:
        raise principals.login_required()
    needed = SCOPE_OF[name]
    if needed in principal.scopes or (_reads(name) and "read" in principal.scopes):
        return
    wanted = f"{needed} (or read)" if _reads(name) and needed != "read" else needed
    raise Forbidden(
        f"This access token lacks the scope {wanted}.",
        code="scope_missing",
        hint=f"Make one that has it: airavata user tokens create NAME --scope {needed}",
    )


def _reads(name: str) -> bool:
    """Whether `read` is enough for the route."""
    return name.startswith("GET ") and not _SECRET.fullmatch(name)


def ordered(scopes: Iterable[str]) -> list[Scope]:
    """The scopes among `scopes`, each once, in our order."""
    given = set(scopes)
    return [scope for scope in SCOPES if scope in given]
