"""The fixture `api`: the real application on a fresh database, and users who are logged in.

def test_…(api: Api) -> None:
    ada = api.user("ada")
    project = ada.post("/projects", {"name": "x"}).json
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from airavata_scheduler.backends import projection
from airavata_scheduler.backends.stores import ensure_default_storage
from airavata_scheduler.functions import admission, grants
from airavata_scheduler.functions.app import Application, create_app
from airavata_scheduler.functions.logins import open_login
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.database import now_ms, transaction
from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.tables import User
from tests.servers.spicedb import SpiceDBTesting

PREFIX = "/api/v1"
SECRET = "0123456789abcdef0123456789abcdef"
# A closed port: an answer of "refused" at once, as with a Redis that is away.
NO_REDIS = "redis://127.0.0.1:1/0"

_numbers = itertools.count(1)


class Answered(TestResponse):
    """An answer as tests see it: its JSON is whatever the test says that it is."""

    @property
    def json(self) -> Any:
        """The body's JSON."""
        return super().json


@dataclass(frozen=True, kw_only=True)
class Caller:
    """One client of the API, with or without a token; paths begin behind `/api/v1`."""

    client: FlaskClient
    token: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def request(self, method: str, path: str, json: Any = None, **kwargs: Any) -> Answered:
        """One request; a path of another group is given whole (`//metrics`)."""
        headers = {**self.headers, **kwargs.pop("headers", {})}
        if self.token is not None:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        address = path.removeprefix("/") if path.startswith("//") else PREFIX + path
        if json is not None:
            kwargs["json"] = json
        answer = self.client.open(address, method=method, headers=headers, **kwargs)
        return cast("Answered", answer)

    def get(self, path: str, **kwargs: Any) -> Answered:
        """GET."""
        return self.request("GET", path, **kwargs)

    def post(self, path: str, json: Any = None, **kwargs: Any) -> Answered:
        """POST, with an empty object as body where none is given."""
        if json is None and "data" not in kwargs:
            json = {}
        return self.request("POST", path, json, **kwargs)

    def patch(self, path: str, json: Any = None, **kwargs: Any) -> Answered:
        """PATCH."""
        return self.request("PATCH", path, json, **kwargs)

    def put(self, path: str, **kwargs: Any) -> Answered:
        """PUT."""
        return self.request("PUT", path, **kwargs)

    def delete(self, path: str, **kwargs: Any) -> Answered:
        """DELETE."""
        return self.request("DELETE", path, **kwargs)


@dataclass(frozen=True, kw_only=True)
class LoggedIn(Caller):
    """A user who is logged in."""

    id: str
    name: str
    tokens: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Api:
    """The application, its configuration, and who calls it."""

    app: Application
    config: Configuration
    nobody: Caller

    def user(self, name: str | None = None, *, is_admin: bool = False) -> LoggedIn:
        """A new active user who is logged in, without the cost of a password."""
        user_id, called = new_id(), name or f"user{next(_numbers)}"
        with transaction():
            now = now_ms()
            User.insert(
                id=user_id, name=called, is_admin=is_admin, created_at=now, updated_at=now
            ).execute()
            grants.user_changed(user_id)
        grants.relay_now()
        tokens = open_login(self.config, user_id).as_json()
        return LoggedIn(
            client=self.app.test_client(),
            token=tokens["access_token"],
            id=user_id,
            name=called,
            tokens=tokens,
        )

    def admin(self, name: str | None = None) -> LoggedIn:
        """A new system administrator who is logged in."""
        return self.user(name, is_admin=True)

    def project(
        self, owner: LoggedIn, name: str = "spine", /, **members: LoggedIn
    ) -> dict[str, Any]:
        """A new project of `owner`; members by role, as `member=grace`."""
        answer = owner.post("/projects", {"name": name})
        assert answer.status_code == 201, answer.text
        for role, user in members.items():
            added = owner.post(f"/projects/{name}/members", {"user": user.name, "role": role})
            assert added.status_code == 201, added.text
        found: dict[str, Any] = answer.json
        return found


def configuration(database_url: str, folder: Path, **settings: str) -> Configuration:
    """A configuration for tests: no rate limit and no Redis, unless `settings` say otherwise."""
    storage = folder / "storage"
    storage.mkdir(exist_ok=True)
    environ = {
        "DATABASE_URL": database_url,
        "JWT_SECRET_KEY": SECRET,
        "RATE_LIMIT_ENABLED": "false",
        "REDIS_URL": NO_REDIS,
        "STORAGE_PATH": str(storage),
        "SPICEDB_INSECURE": "true",
        "SPICEDB_TOKEN": secrets.token_hex(8),
        **settings,
    }
    return Configuration.read(environ, dotenv=None)


def refill() -> None:
    """Bring rows that a test wrote past the application to SpiceDB."""
    projection.rebuild()


MakeApi = Callable[..., Api]


@pytest.fixture
def make_api(
    fresh_database: str, tmp_path: Path, spicedb_testing_server: SpiceDBTesting
) -> Iterator[MakeApi]:
    """Make the application with other settings: `make_api(MAX_BODY_BYTES="1000")`.

    It has a store of its own in a real SpiceDB, unless `settings` name another one.
    """

    def make(**settings: str) -> Api:
        settings = {"SPICEDB_ENDPOINT": spicedb_testing_server.endpoint, **settings}
        config = configuration(fresh_database, tmp_path, **settings)
        ensure_default_storage(config)
        app = create_app(config)
        # Answers that earlier tests did not read to their end count as ones that are being sent.
        admission.load.working = admission.load.waiting = admission.load.aside = 0
        projection.rebuild()
        app.testing = False  # errors become answers, as in production
        return Api(app=app, config=config, nobody=Caller(client=app.test_client()))

    yield make


@pytest.fixture
def api(make_api: MakeApi) -> Api:
    """The application on a fresh database."""
    return make_api()


def with_headers(caller: LoggedIn, **headers: str) -> LoggedIn:
    """The same caller, sending these headers each time (`Idempotency_Key="a"`)."""
    return replace(caller, headers={name.replace("_", "-"): headers[name] for name in headers})
