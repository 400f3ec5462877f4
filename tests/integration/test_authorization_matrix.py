"""Every role on every guarded route, with own and other tenants' objects; and no leak.

The rules are stated here once more, by hand and in other words than the schema's: `MAY`. A route,
kind or permission that this table does not know fails the test.
"""

from __future__ import annotations

import itertools
import logging
import re
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airavata_scheduler.backends.spicedb import SpiceDB
from airavata_scheduler.functions.route_table import ROUTES, Check
from airavata_scheduler.models.database import database
from airavata_scheduler.models.ids import new_id
from tests.api import Api, MakeApi
from tests.servers.programs import running
from tests.servers.spicedb import SpiceDB as SpiceDBServer
from tests.tenants import ROLES, Tenants

PASSED = 299  # what answers behind the gate, in the place of the view
FEWEST_CASES = 400
PAIRS = 200

ROOT = {"root"}
LEAD = {"owner", "admin"}
WORK = LEAD | {"member", "by_group", "by_nested_group", "object_owner"}
CLUB = {"club_owner", "club_manager", "club_member"}  # the group club views the project
VIEW = WORK | {"viewer", "viewing_object_owner"} | CLUB
OPERATE = {"operator", "operator_by_group"}
SHARED = OPERATE | {"user_by_share", "user_by_group", "resource_owner"}
CREDENTIAL_USERS = {"credential_owner", "writer", "reader", "reader_by_group"}
EVERYBODY = set(ROLES)

_RESOURCE = {
    "read": ROOT | VIEW | SHARED,
    "use": ROOT | WORK | SHARED,
    "operate": ROOT | LEAD | OPERATE | {"resource_owner"},
    "manage": ROOT | LEAD | {"resource_owner"},
}
_WORK = {"read": VIEW, "operate": LEAD | {"object_owner"}}

# kind → permission → who has it on the objects of their own tenant.
MAY: Mapping[str, Mapping[str, set[str]]] = {
    "system": {"read": EVERYBODY, "manage": ROOT},
    "user": {"read": ROOT | VIEW, "manage": ROOT},
    "group": {
        "read": ROOT | VIEW,
        "manage": ROOT | {"club_owner", "club_manager"},
        "own": ROOT | {"club_owner"},
    },
    "project": {
        "read": ROOT | VIEW,
        "create": WORK,
        "manage": ROOT | LEAD,
        "own": ROOT | {"owner"},
    },
    "function": {**_WORK, "call": WORK},
    "experiment": {**_WORK, "derive": WORK},
    "task": _WORK,
    "artifact": {"read": VIEW},
    "compute_resource": _RESOURCE,
    "storage_resource": _RESOURCE,
    "agent": {name: who for name, who in _RESOURCE.items() if name != "use"},
    "credential": {
        "read": ROOT | CREDENTIAL_USERS | {"revealer"},
        "use": CREDENTIAL_USERS,
        "write": {"credential_owner", "writer"},
        "share": {"credential_owner"},
        "reveal": {"credential_owner", "revealer"},
        "delete": ROOT | {"credential_owner"},
    },
}
# Who has a place in the other tenant too, and as whom.
ELSEWHERE = {"root": "root", "neighbour": "member"}
AT_HOME = EVERYBODY - {"neighbour"}

GUARDED = sorted(name for name, rule in ROUTES.items() if rule.who == "user")
OTHER_VARIABLES = {"stream": "stdout", "sha256": "0" * 64, "number": "1"}
# A stranger's answer is compared with the one for an unknown id, word for word.
COMPARED = ("stranger", "neighbour", "viewer", "by_nested_group", "credential_owner", "operator")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A route that `role` calls, and whose object each check of its row names."""

    route: str
    role: str
    tenants: tuple[str, ...]

    def __str__(self) -> str:
        """As a difference shows it."""
        return f"{self.route} by {self.role}, objects of {'+'.join(self.tenants) or 'nobody'}"


def test_the_table_knows_every_kind_and_permission() -> None:
    """Whoever adds a check to a route states the rule here too."""
    asked = {(check.kind, check.permission) for name in GUARDED for check in ROUTES[name].checks}
    known = {(kind, permission) for kind, rules in MAY.items() for permission in rules}

    assert asked - known == set()


def test_every_role_on_every_route(api: Api, database_kind: str) -> None:
    """The gate lets through exactly whom the table says; on the servers, each eleventh case."""
    tenants = Tenants(api)
    stop_behind_the_gate(api)
    cases = list(every_case())
    assert len(cases) >= FEWEST_CASES
    some = cases if database_kind == "sqlite" else cases[::11]

    differences = []
    for case in some:
        status, text = answer(tenants, case)
        wanted = expected(case)
        if status != wanted:
            differences.append(f"{case}: {status}, not {wanted}")
        if wanted == 404 and case.role in COMPARED:
            unknown = answer(tenants, with_unknown(case))
            if unknown != (status, text):
                differences.append(f"{case}: {text}, for an unknown id {unknown}")

    assert differences == []
    seen = Counter(expected(case) for case in some)
    assert set(seen) == {PASSED, 401, 403, 404}
    logging.getLogger(__name__).info("%d cases: %s", len(some), dict(seen))


def every_case() -> Iterator[Case]:
    """Own and other objects; where several are named, also each single one of the other tenant."""
    for route, role in itertools.product(GUARDED, ROLES):
        count = len(object_checks(route))
        ways = {("own",) * count, ("other",) * count}
        if count > 1:
            ways |= {
                tuple("other" if at == foreign else "own" for at in range(count))
                for foreign in range(count)
            }
        for tenants in sorted(ways):
            yield Case(route=route, role=role, tenants=tenants)


def object_checks(route: str) -> list[Check]:
    """The checks of a route that name an object, each place once."""
    checks = [check for check in ROUTES[route].checks if check.kind != "system"]
    return list({check.place.rstrip("?*"): check for check in checks}.values())


def refusal(case: Case) -> tuple[int, str] | None:
    """The status with which the first check fails that does, and where its object is named."""
    tenants = dict(zip(map(place, object_checks(case.route)), case.tenants, strict=True))
    for check in ROUTES[case.route].checks:
        held = held_by(case.role, check.kind, tenants.get(place(check), "own"))
        if check.permission not in held:
            return (403 if "read" in held else 404), place(check)
    return None


def expected(case: Case) -> int:
    """What the hand-written table says about a case."""
    if case.role == "disabled":
        return 401
    refused = refusal(case)
    return PASSED if refused is None else refused[0]


def with_unknown(case: Case) -> Case:
    """The same, but the object that is refused is one that does not exist."""
    refused = refusal(case)
    assert refused is not None
    tenants = tuple(
        "unknown" if place(check) == refused[1] else tenant
        for check, tenant in zip(object_checks(case.route), case.tenants, strict=True)
    )
    return Case(route=case.route, role=case.role, tenants=tenants)


def place(check: Check) -> str:
    """Where a request names the object of a check."""
    return check.place.rstrip("?*")


def held_by(role: str, kind: str, tenant: str) -> set[str]:
    """The permissions of a role on a tenant's object."""
    if kind != "system":
        if tenant == "other":
            role = ELSEWHERE.get(role, "")
        elif role not in AT_HOME:
            role = ""
    return {permission for permission, who in MAY[kind].items() if role in who}


def stop_behind_the_gate(api: Api) -> None:
    """Let nobody into a view: what got through the gate is answered there."""
    api.app.before_request_funcs[None].append(lambda: ("", PASSED))


def answer(tenants: Tenants, case: Case) -> tuple[int, str]:
    """The status, and the text with the ids of the request in the words of their kinds."""
    method, path = case.route.split(" ", 1)
    body: dict[str, Any] = {}
    query: dict[str, str] = {}
    names: list[tuple[str, str]] = []
    for check, tenant in zip(object_checks(case.route), case.tenants, strict=True):
        value = tenants.ids_for(case.role, tenant)[check.kind]
        names.append((value, check.kind))
        source, field = place(check).split(":")
        if source == "path":
            path = path.replace(f"{{{field}}}", value)
        elif source == "query":
            query[field] = value
        else:
            body[field] = [value] if check.place.endswith("*") else value
    path = re.sub(r"{(\w+)}", lambda match: OTHER_VARIABLES.get(match.group(1), "x"), path)
    with_body = {"json": body} if method in ("POST", "PATCH", "PUT") else {}
    caller = tenants.callers[case.role]
    answered = caller.request(method, "/" + path, query_string=query, **with_body)
    text = re.sub(r'"request_id":"\w+"', "", answered.text)
    for value, kind in names:
        text = text.replace(value, kind)
    return answered.status_code, text


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_no_answer_tells_of_another_tenant(api: Api) -> None:
    """Whoever reads whatever they may, the views' own answers hold nothing of the other tenant."""
    tenants = Tenants(api)
    # An answer that never ends is left out; what is in it is the experiment's own.
    reads = [name for name in GUARDED if name.startswith("GET ") and not name.endswith("/events")]

    leaks = []
    for route, role in itertools.product(reads, ROLES):
        case = Case(route=route, role=role, tenants=("own",) * len(object_checks(route)))
        status, text = answer(tenants, case)
        foreign = {
            "root": [],
            "neighbour": tenants.markers(tenants.own),
            "stranger": [*tenants.markers(tenants.own), *tenants.markers(tenants.other)],
        }.get(role, tenants.markers(tenants.other))
        leaks += [f"{case}: {status}, {marker}" for marker in foreign if marker in text]
        wanted = expected(case)
        if wanted in (401, 403, 404) and status != wanted:
            leaks.append(f"{case}: {status}, not {wanted}")

    assert leaks == []


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_foreign_id_costs_what_an_unknown_one_costs(
    make_api: MakeApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As many statements and as many calls of SpiceDB, with its caches as in production."""
    with running(SpiceDBServer(tmp_path / "spicedb")) as server:
        measure(Tenants(make_api(**server.settings)), monkeypatch)


def measure(tenants: Tenants, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger asks about foreign and unknown ids in turns."""
    work = Counter[str]()
    count_work(monkeypatch, work)
    eve = tenants.callers["stranger"]

    seen: dict[str, set[tuple[Any, ...]]] = {}
    ratios = {}
    for kind in (kind for kind in MAY if kind != "system"):
        times: dict[str, list[float]] = {"foreign": [], "unknown": []}
        for _ in range(PAIRS):
            for way, taken in times.items():
                object_id = tenants.own.ids[kind] if way == "foreign" else new_id()
                work.clear()
                began = time.perf_counter()
                status = eve.get(f"/{kind.replace('_', '-')}s/{object_id}").status_code
                taken.append(time.perf_counter() - began)
                seen.setdefault(kind, set()).add((status, *sorted(work.items())))
        foreign, unknown = (statistics.median(times[way]) for way in ("foreign", "unknown"))
        ratios[kind] = round(foreign / unknown, 3)

    assert all(len(found) == 1 for found in seen.values()), seen
    assert {next(iter(found))[0] for found in seen.values()} == {404}
    logging.getLogger(__name__).info("median time, foreign by unknown: %s", ratios)


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_foreign_name_is_one_that_does_not_exist(api: Api) -> None:
    """Neither the words nor the hint tell that another tenant has it."""
    tenants = Tenants(api)
    eve = tenants.callers["stranger"]
    names = {
        "project": "spine",
        "user": "viewer",
        "group": "spine-club",
        "compute_resource": "spine-c",
        "storage_resource": "spine-s",
        "agent": "spine-node",
        "experiment": "spine-e",
        "function": "spine-f",
        "credential": "spine-key",
    }

    for kind, name in names.items():
        texts = []
        for asked in (name, "zz" + name[2:]):
            answered = eve.get(f"/{kind.replace('_', '-')}s/{asked}")
            text = re.sub(r'"request_id":"\w+"', "", answered.text).replace(asked, "NAME")
            texts.append((answered.status_code, text))
        assert texts[0] == texts[1], kind
        assert texts[0][0] == 404, kind


def count_work(monkeypatch: pytest.MonkeyPatch, work: Counter[str]) -> None:
    """Count each statement and each call of SpiceDB that is made from here on."""
    call, run = SpiceDB._call, type(database.obj).execute_sql

    def counted_call(self: SpiceDB, *args: Any, **kwargs: Any) -> Any:
        work["calls"] += 1
        return call(self, *args, **kwargs)

    def counted_run(self: Any, *args: Any, **kwargs: Any) -> Any:
        work["statements"] += 1
        return run(self, *args, **kwargs)

    monkeypatch.setattr(SpiceDB, "_call", counted_call)
    monkeypatch.setattr(type(database.obj), "execute_sql", counted_run)
