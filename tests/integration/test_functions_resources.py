"""Compute and storage resources: who sees, makes, changes and deletes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airavata_scheduler.backends.spicedb import spicedb
from tests.api import Api, LoggedIn

COMPUTE = {"name": "cluster-1", "kind": "SLURM"}


def compute(admin: LoggedIn, name: str = "cluster-1", **members: Any) -> dict[str, Any]:
    """A new compute resource."""
    answer = admin.post("/compute-resources", {"name": name, "kind": "BARE_METAL", **members})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json
    return found


def test_a_shared_resource_is_an_administrators_to_make(api: Api) -> None:
    """Everybody may read it then, and nobody else may change it."""
    admin, ada = api.admin(), api.user("ada")

    refused = ada.post("/compute-resources", COMPUTE)
    made = admin.post("/compute-resources", {**COMPUTE, "limits": {"max_cpu": 64}})

    assert refused.status_code == 403
    assert made.status_code == 201
    assert made.json["project_id"] is None
    assert made.json["limits"] == {"max_cpu": 64}
    assert ada.get("/compute-resources/cluster-1").status_code == 200
    assert ada.patch("/compute-resources/cluster-1", {"state": "disabled"}).status_code == 403
    assert ada.delete("/compute-resources/cluster-1").status_code == 403


def test_a_bound_resource_is_its_projects(api: Api) -> None:
    """A project admin makes it; members read it; for others it does not exist."""
    ada, bob, eve = api.user("ada"), api.user("bob"), api.user("eve")
    project = api.project(ada, viewer=bob)

    by_viewer = bob.post("/compute-resources", {**COMPUTE, "project": "spine"})
    by_stranger = eve.post("/compute-resources", {**COMPUTE, "project": "spine"})
    made = ada.post("/compute-resources", {**COMPUTE, "project": "spine"})

    assert by_viewer.status_code == 403
    assert by_stranger.status_code == 404
    assert made.json["project_id"] == project["id"]
    assert bob.get("/compute-resources/cluster-1").status_code == 200
    assert eve.get("/compute-resources/cluster-1").status_code == 404
    assert eve.get("/compute-resources").json["items"] == []
    found = spicedb().relationships("compute_resource", made.json["id"])
    assert {each.relation for each in found} == {"system", "owner", "project"}


def test_another_tenants_resource_is_the_same_404(api: Api) -> None:
    """The body does not tell an id of somebody else from one that nobody has."""
    ada, eve = api.user("ada"), api.user("eve")
    api.project(ada)
    theirs = ada.post("/compute-resources", {**COMPUTE, "project": "spine"}).json["id"]
    nobodys = theirs[:-4] + ("0000" if theirs[-4:] != "0000" else "1111")

    bodies = [eve.get(f"/compute-resources/{asked}").json for asked in (theirs, nobodys)]

    for body, asked in zip(bodies, (theirs, nobodys), strict=True):
        body["detail"] = body["detail"].replace(asked, "…")
        body["request_id"] = ""
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"kind": "GRID"}, "kind"),
        ({"name": "a/b"}, "name"),
        ({"limits": {"max_cpu": -1}}, "limits.max_cpu"),
        ({"limits": {"max_cpu": True}}, "limits.max_cpu"),
        ({"limits": {"max_cpus": 4}}, "limits.max_cpus"),
        ({"limits": {"max_ram_gb": "4"}}, "limits.max_ram_gb"),
        ({"timers": {"heartbeat_s": 0}}, "timers.heartbeat_s"),
        ({"timers": {"heartbeat_s": 200}}, "timers.suspect_after_s"),
        ({"timers": {"requeue_after_s": 10}}, "timers.requeue_after_s"),
        ({"price_per_core_hour": -0.5}, "price_per_core_hour"),
        ({"price_per_core_hour": 1e308}, "price_per_core_hour"),
        ({"owner_id": "me"}, "owner_id"),
        ({"state": "disabled"}, "state"),
        ({"description": "a\x1b[31mb"}, "description"),
        ({"project": 7}, "project"),
    ],
)
def test_bad_values_name_their_field(api: Api, members: dict[str, Any], field: str) -> None:
    """Each is a 422 that names the field, and nothing is made."""
    admin = api.admin()

    answer = admin.post("/compute-resources", {**COMPUTE, **members})

    assert answer.status_code == 422
    assert answer.json["field"] == field
    assert admin.get("/compute-resources").json["items"] == []


def test_a_nested_unknown_field_gets_a_suggestion(api: Api) -> None:
    """The advice comes from the object in which the field stands."""
    answer = api.admin().post("/compute-resources", {**COMPUTE, "limits": {"max_cpus": 4}})

    assert answer.json["code"] == "unknown_field"
    assert "max_cpu?" in answer.json["detail"]


def test_changing_and_deleting(api: Api) -> None:
    """A resource that nothing uses can be renamed and deleted."""
    admin = api.admin()
    compute(admin)
    compute(admin, "other")

    taken = admin.patch("/compute-resources/cluster-1", {"name": "other"})
    renamed = admin.patch("/compute-resources/cluster-1", {"name": "cluster-2"})
    gone = admin.delete("/compute-resources/cluster-2")

    assert taken.status_code == 409
    assert renamed.json["version"] == 2
    assert gone.status_code == 204
    assert admin.get("/compute-resources/cluster-2").status_code == 404


def test_a_list_is_filtered(api: Api) -> None:
    """By kind and by a part of the name; wildcards are letters like others."""
    admin = api.admin()
    compute(admin, "alpha")
    compute(admin, "beta_1")
    admin.post("/compute-resources", COMPUTE)

    def names(query: str) -> list[str]:
        items = admin.get(f"/compute-resources?{query}").json["items"]
        return [item["name"] for item in items]

    assert names("kind=SLURM") == ["cluster-1"]
    assert names("q=alp") == ["alpha"]
    assert names("q=_") == ["beta_1"]
    assert names("q=%25") == []


def test_the_default_storage_is_there_and_stays(api: Api) -> None:
    """Everybody sees it, only administrators see where it lies, and it cannot be lost."""
    admin, ada = api.admin(), api.user("ada")

    shown = ada.get("/storage-resources/default").json
    whole = admin.get("/storage-resources/default").json

    assert shown["is_default"] is True
    assert "location" not in shown
    assert whole["location"]["path"] == str(api.config.storage_path)
    assert admin.delete("/storage-resources/default").status_code == 409
    assert (
        admin.patch("/storage-resources/default", {"state": "disabled"}).json["code"]
        == "default_storage"
    )


def test_storage_is_a_folder_that_an_administrator_names(api: Api, tmp_path: Path) -> None:
    """A project admin must not make the server read its own disks."""
    admin, ada = api.admin(), api.user("ada")
    api.project(ada)
    folder = tmp_path / "data"
    folder.mkdir()
    body = {"name": "data", "kind": "NFS", "location": {"path": str(folder)}}

    refused = ada.post("/storage-resources", {**body, "project": "spine"})
    made = admin.post("/storage-resources", {**body, "project": "spine"})
    status = ada.get("/storage-resources/data/status")

    assert refused.status_code == 403
    assert made.status_code == 201
    assert status.json["usable"] is True
    assert status.json["free_bytes"] > 0


@pytest.mark.parametrize("path", ["relative", "/", "/etc/../etc", "/nowhere/at/all", "/etc/passwd"])
def test_storage_paths_that_are_refused(api: Api, path: str) -> None:
    """Only an absolute path of a folder that exists and can be written is taken."""
    body = {"name": "data", "kind": "NFS", "location": {"path": path}}

    answer = api.admin().post("/storage-resources", body)

    assert answer.status_code == 422
    assert answer.json["field"] == "location.path"


def test_another_storage_becomes_the_default(api: Api, tmp_path: Path) -> None:
    """There is one default at any time; the old one can be disabled then."""
    admin = api.admin()
    folder = tmp_path / "data"
    folder.mkdir()
    admin.post(
        "/storage-resources", {"name": "data", "kind": "NFS", "location": {"path": str(folder)}}
    )

    answer = admin.patch("/storage-resources/data", {"is_default": True})

    assert answer.json["is_default"] is True
    items = admin.get("/storage-resources").json["items"]
    assert [item["name"] for item in items if item["is_default"]] == ["data"]
    old = admin.patch("/storage-resources/default", {"state": "disabled"})
    assert old.status_code == 200
