"""Two tenants with an object of every kind each, and a person in every role towards the first.

Rows are written past the application, then brought to SpiceDB: so a world costs a second.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from airavata_scheduler.models.database import now_ms, transaction
from airavata_scheduler.models.ids import new_id, new_lease_id
from airavata_scheduler.models.tables import (
    Agent,
    Artifact,
    ComputeResource,
    Credential,
    Experiment,
    Function,
    Group,
    GroupMember,
    Node,
    Project,
    ProjectGroup,
    ProjectMember,
    Share,
    StorageResource,
    Task,
    User,
)
from tests.api import Api, LoggedIn, refill

NESTED = 5

# Each is one person. What they may do stands in the tests that use them.
ROLES = (
    *("root", "owner", "admin", "member", "viewer", "by_group", "by_nested_group"),
    *("object_owner", "viewing_object_owner", "former_object_owner"),
    *("club_owner", "club_manager", "club_member"),
    *("resource_owner", "operator", "user_by_share", "operator_by_group", "user_by_group"),
    *("credential_owner", "writer", "reader", "revealer", "reader_by_group"),
    *("stranger", "neighbour", "disabled"),
)


class Tenant:
    """A project, its people by role, and the ids of its objects by kind."""

    def __init__(self, name: str, people: dict[str, str], folder: Path) -> None:
        """`people` are ids by role; who is missing has no place here. `folder` is its storage."""
        self.name, self.people, self.now = name, people, now_ms()
        self.common = {"created_at": self.now, "updated_at": self.now}
        self.folder = folder / name
        self.folder.mkdir()
        (self.folder / "k").touch()
        self.project = self._made(Project, name=name, owner_id=people["owner"], **self.common)
        for role in ("owner", "admin", "member", "viewer"):
            self.join(role, role)
        self.ids = {"project": self.project, "user": people["viewer"]}
        self._resources()
        self.ids |= self.work(people.get("object_owner", people["owner"]))
        self.ids["group"] = self.group(
            "club", owner="club_owner", manager="club_manager", member="club_member"
        )
        self.enter(self.ids["group"], "viewer")
        self._credential()

    def join(self, role: str, as_role: str) -> None:
        """Give the person a role in the project."""
        if role in self.people:
            ProjectMember.insert(
                project_id=self.project,
                user_id=self.people[role],
                role=as_role,
                created_at=self.now,
            ).execute()

    def group(self, name: str, /, **roles: str) -> str:
        """A new group and its people: role in the group → their name; its id."""
        group_id = self._made(Group, name=f"{self.name}-{name}", **self.common)
        for role, person in roles.items():
            if person in self.people:
                self.put(group_id, "user", self.people[person], role)
        return group_id

    def put(self, group_id: str, kind: str, subject_id: str, role: str = "member") -> None:
        """Put a user or a group into a group."""
        GroupMember.insert(
            group_id=group_id,
            subject_kind=kind,
            subject_id=subject_id,
            role=role,
            created_at=self.now,
        ).execute()

    def enter(self, group_id: str, role: str) -> None:
        """Give a group a role in the project."""
        ProjectGroup.insert(
            project_id=self.project, group_id=group_id, role=role, created_at=self.now
        ).execute()

    def nested_groups(self, innermost: str) -> str:
        """The outermost of NESTED groups in each other; `innermost` is a member of the last one."""
        ids = [self.group(f"deep{number}") for number in range(NESTED)]
        for outer, inner in itertools.pairwise(ids):
            self.put(outer, "group", inner)
        self.put(ids[-1], "user", self.people[innermost])
        return ids[0]

    def share(self, kind: str, relation: str, subject_kind: str, subject_id: str) -> None:
        """Share the tenant's object of `kind`."""
        Share.insert(
            object_kind=kind,
            object_id=self.ids[kind],
            relation=relation,
            subject_kind=subject_kind,
            subject_id=subject_id,
            created_by=self.people["owner"],
            created_at=self.now,
        ).execute()

    def work(self, owner_id: str) -> dict[str, str]:
        """A function and an experiment of `owner_id`, with a task and its artifact; their ids."""
        bound = {"project_id": self.project, "owner_id": owner_id, **self.common}
        function = self._made(Function, name=f"{self.name}-f{owner_id}", **bound)
        experiment = self._made(
            Experiment,
            name=f"{self.name}-e",
            spec={},
            compute=[self.ids["compute_resource"]],
            **bound,
        )
        node = self._made(Node, experiment_id=experiment, name="n", position=0, spec={})
        placed = {"experiment_id": experiment, "node_id": node, "idx": 0, "created_at": self.now}
        task = self._made(Task, compute_id=self.ids["compute_resource"], **placed)
        artifact = self._made(
            Artifact,
            task_id=task,
            lease_id=new_lease_id(),
            attempt=1,
            output="o",
            path="o",
            size=0,
            sha256="0" * 64,
            storage_id=self.ids["storage_resource"],
            storage_key="k",
            state="published",
            **placed,
        )
        return {"function": function, "experiment": experiment, "task": task, "artifact": artifact}

    def _resources(self) -> None:
        owner_id = self.people.get("resource_owner", self.people["owner"])
        bound = {"project_id": self.project, "owner_id": owner_id, **self.common}
        self.ids["compute_resource"] = self._made(
            ComputeResource, name=f"{self.name}-c", kind="SLURM", limits={}, timers={}, **bound
        )
        self.ids["storage_resource"] = self._made(
            StorageResource,
            name=f"{self.name}-s",
            kind="NFS",
            location={"path": str(self.folder)},
            **bound,
        )
        self.ids["agent"] = self._made(
            Agent,
            compute_id=self.ids["compute_resource"],
            name=f"{self.name}-node",
            secret_hash="0" * 64,
            secret_set_at=self.now,
            host={},
            capabilities={},
            policy={},
            created_at=self.now,
            state="active",
        )

    def _credential(self) -> None:
        self.ids["credential"] = self._made(
            Credential,
            name=f"{self.name}-key",
            kind="USERNAME_PASSWORD",
            owner_id=self.people.get("credential_owner", self.people["owner"]),
            public={},
            secret_version=1,
            write_id=new_id(),
            **self.common,
        )

    @staticmethod
    def _made(table: Any, **values: Any) -> str:
        made = new_id()
        table.insert(id=made, **values).execute()
        return made


class Tenants:
    """`own`, where the people of ROLES stand, and `other`, of which `neighbour` is a member.

    `ids_for` gives the ids of a tenant's objects: who owns work which they cannot operate any more
    is asked about that work.
    """

    def __init__(self, api: Api) -> None:
        self.callers = {role: self._user(api, role) for role in ROLES}
        people = {role: caller.id for role, caller in self.callers.items()}
        elsewhere = {
            "owner": self._user(api, "owner_elsewhere").id,
            "member": people["neighbour"],
            "viewer": self._user(api, "viewer_elsewhere").id,
        }
        with transaction():
            folder = api.config.storage_path
            self.other = Tenant("bone", elsewhere | {"club_owner": elsewhere["owner"]}, folder)
            del people["neighbour"]
            self.own = Tenant("spine", people, folder)
            self._fill_own()
            User.update(state="disabled").where(User.id == people["disabled"]).execute()
        refill()

    @staticmethod
    def _user(api: Api, role: str) -> LoggedIn:
        return api.user(role, is_admin=role == "root")

    def _fill_own(self) -> None:
        own, people = self.own, self.own.people
        own.join("object_owner", "member")
        own.join("viewing_object_owner", "viewer")
        own.join("disabled", "owner")
        own.enter(own.group("staff", member="by_group"), "member")
        own.enter(own.nested_groups("by_nested_group"), "member")
        self._work_of = {
            role: own.work(people[role]) for role in ("viewing_object_owner", "former_object_owner")
        }
        for kind in ("compute_resource", "storage_resource"):
            own.share(kind, "operator", "user", people["operator"])
            own.share(kind, "user", "user", people["user_by_share"])
        operators = own.group("operators", member="operator_by_group")
        users = own.group("users", manager="user_by_group")
        for kind in ("compute_resource", "storage_resource"):
            own.share(kind, "operator", "group", operators)
            own.share(kind, "user", "group", users)
        for relation in ("writer", "reader", "revealer"):
            own.share("credential", relation, "user", people[relation])
        own.share("credential", "reader", "group", own.group("readers", owner="reader_by_group"))

    def ids_for(self, role: str, tenant: str) -> dict[str, str]:
        """The ids by kind of `own` or `other` about which `role` is asked; else unknown ones."""
        if tenant == "unknown":
            return {kind: new_id() for kind in self.own.ids}
        if tenant == "other":
            return self.other.ids
        return self.own.ids | self._work_of.get(role, {})

    def markers(self, tenant: Tenant) -> Iterable[str]:
        """What may not stand in an answer to a stranger of the tenant."""
        return [*tenant.ids.values(), tenant.name + "-"]
