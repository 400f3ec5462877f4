"""Who may do what: the one table of routes, and the one gate in front of them.

Every route of the application has one entry in `ROUTES`: who may call it, and which checks must
hold. A check names an object's kind, a permission, and where the request carries the object's name.
The gate finds the objects, asks `permissions.allows`, and only then lets the view run; the view
takes what was found by `target()`. A route without an entry stops the start.

An object that the caller may not read does not exist for them: the answer is the same 404.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from flask import Flask, g, request

from airavata_scheduler.functions import naming, permissions, principals, scopes
from airavata_scheduler.functions.naming import Kind, Target
from airavata_scheduler.functions.permissions import Permission
from airavata_scheduler.functions.principals import Principal
from airavata_scheduler.functions.route_table import ROUTES, Check, Rule
from airavata_scheduler.models.errors import BadInput, Forbidden

__all__ = ["ROUTES", "authorize", "check_routes", "require", "require_all", "target", "targets"]


def authorize(principal: Principal, permission: Permission, found: Target) -> None:
    """Return if `principal` has `permission` on `found`.

    Raises NotFound, the same as for an object that does not exist, where the principal may not even
    read it; else Forbidden.
    """
    allowed, readable = permissions.decide(principal, [(permission, found), ("read", found)])
    if allowed:
        return
    if not readable:
        raise naming.not_found(found.kind, found.asked, principal)
    if found.kind == "system":
        raise Forbidden("This takes a system administrator.")
    raise Forbidden(
        f"You may see {found.label}, but not {permissions.VERBS[permission]} it.",
        hint=permissions.advice(permission, found),
    )


def require(kind: Kind, name: str, permission: Permission, *, within: str | None = None) -> Target:
    """The object of `kind` called `name` (id, unique name or id prefix), if the caller may.

    For views whose object is named in a place that the table cannot express. `within` is the
    project that a function's name belongs to. Raises NotFound, Forbidden or BadInput (ambiguous).
    """
    principal = principals.current()
    found = naming.find(kind, name, principal, within=within, wanted=permission)
    authorize(principal, permission, found)
    return found


def require_all(kind: Kind, ids: list[str], permission: Permission) -> list[Target]:
    """The objects with these full ids, in their order, in one query and one call; for batches.

    Raises NotFound for the first that the caller may not read, Forbidden for one they may not
    touch.
    """
    principal = principals.current()
    found = naming.find_all(kind, ids, principal, wanted=permission)
    for item in found:
        authorize(principal, permission, item)
    return found


def target(kind: Kind | None = None) -> Target:
    """The object that this request is about: the first one of `kind`, or the first of all."""
    for item in targets(kind):
        return item
    raise LookupError(f"the route table names no {kind or 'object'} for {request.endpoint}")


def targets(kind: Kind | None = None) -> list[Target]:
    """Every object that the gate found for this request, in the table's and the request's order."""
    found: list[Target] = g.get("targets", [])
    return [item for item in found if kind in (None, item.kind)]


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a request carries an object's name: `path:x`, `query:x?`, `body:x`, `body:x*`."""

    source: str
    field: str
    optional: bool
    many: bool


MAX_NAMES = 1000  # of one list; each is looked up and asked about before the view sees the body

_PLACE = re.compile(r"(path|query|body):(\w+)([?*]?)")


def _place(text: str) -> _Place:
    match = _PLACE.fullmatch(text)
    if match is None:
        raise ValueError(f"not a place in a request: {text!r}")
    source, field, mark = match.groups()
    return _Place(source=source, field=field, optional=mark != "", many=mark == "*")


def _names(place: _Place) -> list[str]:
    """The names that the request gives at `place`; empty where an optional one is absent."""
    value = _value(place)
    if value is None:
        if place.optional:
            return []
        raise BadInput(f"{place.field} is missing.", code="missing_field", field=place.field)
    names = value if place.many else [value]
    if isinstance(names, list) and len(names) > MAX_NAMES:
        raise BadInput(
            f"{place.field} has {len(names)} entries; {MAX_NAMES} at most are taken.",
            code="invalid_too_long",
            field=place.field,
        )
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        wanted = "a list of names or ids" if place.many else "a name or an id"
        raise BadInput(f"{place.field} must be {wanted}.", code="invalid_type", field=place.field)
    return names


def _value(place: _Place) -> Any:
    if place.source == "path":
        return (request.view_args or {}).get(place.field)
    if place.source == "query":
        return request.args.get(place.field)
    return request.get_json().get(place.field)


def _check(check: Check, principal: Principal) -> list[Target]:
    if check.kind == "system":
        authorize(principal, check.permission, naming.SYSTEM)
        return [naming.SYSTEM]
    place = _place(check.place)
    names = _names(place)
    if place.many and check.by_id:
        return require_all(check.kind, names, check.permission)
    within = request.args.get("project") if check.kind == "function" else None
    return [require(check.kind, name, check.permission, within=within) for name in names]


def _gate() -> None:
    """Authenticate and authorize this request by its row in the table."""
    if request.url_rule is None or request.method == "OPTIONS":
        return  # no such route: Flask answers 404 or 405; OPTIONS tells only the methods
    name = route_name(request.method, request.url_rule.rule)
    rule = ROUTES[name]
    g.rule = rule
    if rule.who != "user":
        return  # anyone; or an agent, whom the agents' own blueprint authenticates
    principal = principals.authenticate()
    scopes.check(principal, name)
    g.targets = [found for check in rule.checks for found in _check(check, principal)]


def rule_now() -> Rule | None:
    """The table's row of this request; None before the gate or where no route fits."""
    found: Rule | None = g.get("rule")
    return found


def route_name(method: str, rule: str) -> str:
    """`GET /api/v1/projects/{project}`: how the table and the OpenAPI document name a route."""
    method = "GET" if method == "HEAD" else method
    return f"{method} " + re.sub(r"<(?:[^<>:]+:)?([^<>]+)>", r"{\1}", rule)


def routes_of(app: Flask) -> set[str]:
    """The names of every route that `app` answers, HEAD and OPTIONS left out."""
    return {
        route_name(method, rule.rule)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def check_routes(app: Flask) -> None:
    """Raise LookupError if a route of `app` has no row, or a row names a place that cannot be."""
    missing = sorted(routes_of(app) - set(ROUTES))
    if missing:
        raise LookupError(f"routes without a row in functions/route_table.py: {missing}")
    for name, rule in ROUTES.items():
        for check in rule.checks:
            if check.kind == "system":
                continue
            place = _place(check.place)
            if place.source == "path" and f"{{{place.field}}}" not in name:
                raise LookupError(f"{name}: the path has no {place.field}")


def register(app: Flask) -> None:
    """Put the gate in front of every route of `app`."""
    app.before_request(_gate)
