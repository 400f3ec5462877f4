"""Who sends bad inputs, and what they are about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airavata_scheduler.models.tables import TABLES
from tests.api import PREFIX, Answered, Api, Caller, LoggedIn
from tests.bad_input.case import Case
from tests.wire_agent import BASE, Wire
from tests.work import sweep

# Rows that also a refused request may change: when somebody was heard of, who tried a password.
HEARD_OF = frozenset({"agent_sessions", "access_tokens"})
FUNCTION = {"parameters": {"SEED": "int"}, "command": "echo {{SEED}}"}


@dataclass(frozen=True, kw_only=True)
class World:
    """ada owns the project spine, eve another one; root administers; an agent holds a lease."""

    api: Api
    root: LoggedIn
    ada: LoggedIn
    eve: LoggedIn
    nobody: Caller
    agent: Wire
    other_agent: Wire
    places: Mapping[str, str]

    @classmethod
    def made(cls, api: Api) -> World:
        """The world in a fresh database."""
        root, ada, eve = api.admin("root"), api.user("ada"), api.user("eve")
        api.project(ada)
        api.project(eve, "bone")
        agent = Wire.enrolled(api, owner=root)
        experiment = agent.submit(sweep("1..40"), ada)
        held = agent.claim(1)["leases"][0]["lease"]
        agent.start(held)
        agent.patch_log(held, 0, b"hello\n")
        function = ada.post("/functions", {"project": "spine", "name": "heat", "spec": FUNCTION})
        assert function.status_code == 201, function.text
        foreign = eve.post("/experiments", {"project": "bone", "document": sweep("1..2")})
        places = {
            "experiment": experiment,
            "lease": held,
            "task": held.split(".")[0],
            "foreign_experiment": foreign.json["id"],
        }
        return cls(
            api=api,
            root=root,
            ada=ada,
            eve=eve,
            nobody=api.nobody,
            agent=agent,
            other_agent=agent.beside(),
            places=places,
        )

    def answer(self, case: Case) -> Answered:
        """Send a case's request; the answer, read to its end."""
        who, method, path = self.filled(case.send).split(" ", 2)
        options: dict[str, Any] = {"headers": dict(case.headers)}
        if case.query:
            options["query_string"] = {k: self.filled(v) for k, v in case.query.items()}
        if case.json is not None:
            options["json"] = self.filled(case.json)
        if case.data is not None:
            options["data"] = case.data() if callable(case.data) else case.data
            options["headers"].setdefault("Content-Type", "application/json")
        if who.endswith("agent"):
            wire: Wire = getattr(self, who)
            found = wire.call(method, path.removeprefix(BASE), **options)
        else:
            caller: Caller = getattr(self, who)
            found = caller.request(method, path.removeprefix(PREFIX), **options)
        found.get_data()
        return found

    def filled(self, value: Any) -> Any:
        """A value with the world's ids in the places of its texts."""
        if isinstance(value, str):
            for name, found in self.places.items():
                value = value.replace("{" + name + "}", found)
            return value
        if isinstance(value, dict):
            return {key: self.filled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.filled(item) for item in value]
        return value

    def traces(self) -> dict[str, Any]:
        """Everything that is stored: the rows of each table, and the files of the storage."""
        found: dict[str, Any] = {
            name: sorted(map(repr, table.select().tuples()))
            for table in TABLES
            if (name := table._meta.table_name) not in HEARD_OF
        }
        folder = self.api.config.storage_path
        found["files"] = sorted(
            (str(path.relative_to(folder)), path.stat().st_size)
            for path in folder.rglob("*")
            if path.is_file()
        )
        return found
