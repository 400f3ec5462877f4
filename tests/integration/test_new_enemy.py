"""The new enemy: somebody whose right was taken away, asked about at a state from before that.

SpiceDB answers `minimize_latency` from a state of up to five seconds ago. Here one sees that such
a check still lets the revoked in, and that ours does not, whatever is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from authzed.api.v1 import (
    CheckPermissionRequest,
    CheckPermissionResponse,
    Consistency,
    ObjectReference,
    SubjectReference,
)

from tests.api import LoggedIn, MakeApi
from tests.servers.programs import running
from tests.servers.spicedb import SpiceDB
from tests.waiting import wait_until

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)

Deed = Callable[[], None]

ROUNDS = 3
# A revoke may fall on the very moment at which SpiceDB takes a newer state.
TRIES = 4


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SpiceDB]:
    """`spicedb serve` with its own defaults: states are five seconds apart."""
    with running(SpiceDB(tmp_path / "spicedb")) as found:
        yield found


def weak_check(server: SpiceDB, project: str, user: LoggedIn) -> bool:
    """What a check says that takes whichever state is at hand."""
    request = CheckPermissionRequest(
        consistency=Consistency(minimize_latency=True),
        resource=ObjectReference(object_type="project", object_id=project),
        permission="view",
        subject=SubjectReference(object=ObjectReference(object_type="user", object_id=user.id)),
    )
    answer = server.client().CheckPermission(request, timeout=5)
    return bool(answer.permissionship == CheckPermissionResponse.PERMISSIONSHIP_HAS_PERMISSION)


def add_function(owner: LoggedIn, name: str) -> str:
    """New content of the project."""
    code = "def square(x):\n    return x * x\n"
    spec = {"python": {"entry": "square", "source": code}}
    made = owner.post("/functions", {"project": "spine", "name": name, "spec": spec})
    assert made.status_code == 201, made.text
    found: str = made.json["id"]
    return found


def ours(user: LoggedIn, project: str, function: str) -> list[Any]:
    """What the API tells the user of the project and of its newest content."""
    listed = user.get("/functions").json["items"]
    return [
        user.get(f"/projects/{project}").status_code,
        user.get(f"/functions/{function}").status_code,
        [item["id"] for item in listed],
    ]


def test_a_revoked_member(make_api: MakeApi, server: SpiceDB) -> None:
    """Taken out of the project; the next thing that its owner adds is not for them."""
    api = make_api(**server.settings)
    ada, bob = api.user("ada"), api.user("bob")
    project = api.project(ada, "spine")["id"]

    def give() -> None:
        given = ada.post("/projects/spine/members", {"user": "bob", "role": "viewer"})
        assert given.status_code == 201

    def take() -> None:
        assert ada.delete("/projects/spine/members/bob").status_code == 204

    weakly_let_in = probe(server, project, (ada, bob), (give, take))

    assert weakly_let_in > 0, "a check of an older state was no danger"


def test_a_member_of_a_nested_group(make_api: MakeApi, server: SpiceDB) -> None:
    """Taken out of a group in a group of the project."""
    api = make_api(**server.settings)
    ada, bob = api.user("ada"), api.user("bob")
    project = api.project(ada, "spine")["id"]
    for name in ("outer", "inner"):
        ada.post("/groups", {"name": name})
    ada.post("/groups/outer/members", {"group": "inner"})
    ada.post("/projects/spine/members", {"group": "outer", "role": "viewer"})

    def give() -> None:
        assert ada.post("/groups/inner/members", {"user": "bob"}).status_code == 201

    def take() -> None:
        assert ada.delete("/groups/inner/members/bob").status_code == 204

    weakly_let_in = probe(server, project, (ada, bob), (give, take))

    assert weakly_let_in > 0, "a check of an older state was no danger"


def probe(
    server: SpiceDB, project: str, people: tuple[LoggedIn, LoggedIn], ways: tuple[Deed, Deed]
) -> int:
    """How many weak checks let the revoked in; ours must not, in any round."""
    (ada, bob), (give, take) = people, ways
    weakly_let_in = 0
    for number in range(ROUNDS + TRIES):
        if number >= ROUNDS and weakly_let_in:
            break
        give()
        wait_until(lambda: weak_check(server, project, bob), message="the state to be taken")
        before = add_function(ada, f"before{number}")
        assert bob.get(f"/functions/{before}").status_code == 200

        take()
        at_once = bob.get(f"/projects/{project}").status_code
        content = add_function(ada, f"after{number}")
        weakly_let_in += weak_check(server, project, bob)

        assert at_once == 404
        assert ours(bob, project, content) == [404, 404, []]
    return weakly_let_in
