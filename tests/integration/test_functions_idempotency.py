"""Idempotency keys: a creating POST happens once, whatever is lost, doubled or raced."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from airavata_scheduler.functions import projects
from airavata_scheduler.models.tables import (
    EnrolmentToken,
    IdempotencyKey,
    LoginLink,
    Project,
    User,
)
from tests.api import Api, LoggedIn, with_headers


def keyed(user: LoggedIn, key: str = "key-1") -> LoggedIn:
    """The user, sending this key."""
    return with_headers(user, Idempotency_Key=key)


def test_the_same_key_creates_once(api: Api) -> None:
    """The second answer is the first one, and nothing is made again."""
    ada = keyed(api.user("ada"))

    first = ada.post("/projects", {"name": "spine"})
    second = ada.post("/projects", {"name": "spine"})

    assert first.status_code == second.status_code == 201
    assert first.json == second.json
    assert Project.select().count() == 1
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"


def test_the_same_key_with_another_body_is_refused(api: Api) -> None:
    """A client that mixes up its keys learns it."""
    ada = keyed(api.user("ada"))
    ada.post("/projects", {"name": "spine"})

    other_body = ada.post("/projects", {"name": "other"})
    other_route = ada.post("/compute-resources", {"name": "spine"})

    assert other_body.status_code == 422
    assert other_body.json["code"] == "idempotency_key_reused"
    assert other_route.status_code in (403, 422)
    assert Project.select().count() == 1


def test_another_users_key_is_another_key(api: Api) -> None:
    """Keys are each user's own: nobody gets somebody else's answer."""
    ada, eve = keyed(api.user("ada")), keyed(api.user("eve"))
    ada.post("/projects", {"name": "spine"})

    answer = eve.post("/projects", {"name": "spine"})

    assert answer.status_code == 409
    assert answer.json["code"] == "name_taken"


def test_a_failed_creation_does_not_use_up_the_key(api: Api) -> None:
    """After an error the same key may be sent again, corrected."""
    ada, eve = api.user("ada"), api.user("eve")
    api.project(eve, "taken")

    refused = keyed(ada).post("/projects", {"name": "taken"})
    made = keyed(ada).post("/projects", {"name": "free"})

    assert refused.status_code == 409
    assert made.status_code == 201


def test_a_crash_in_the_middle_leaves_nothing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key and what it makes are one transaction."""
    ada = keyed(api.user("ada"))

    def crash(*_args: Any) -> Any:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(projects, "_shown", crash)
        broken = ada.post("/projects", {"name": "spine"})
    again = ada.post("/projects", {"name": "spine"})

    assert broken.status_code == 500
    assert again.status_code == 201
    assert Project.select().count() == 1


def test_many_at_once_create_one(api: Api) -> None:
    """Of ten equal requests at the same moment one creates, and all get its answer."""
    ada = keyed(api.user("ada"))

    def create(_: int) -> tuple[int, Any]:
        answer = ada.post("/projects", {"name": "spine"})
        return answer.status_code, answer.json

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(create, range(10)))

    assert [status for status, _ in answers] == [201] * 10
    assert len({body["id"] for _, body in answers}) == 1
    assert Project.select().count() == 1


def test_answers_with_secrets_are_sealed(api: Api) -> None:
    """A repeat shows the same link; the database shows none."""
    admin = keyed(api.admin("root"))

    first = admin.post("/users", {"name": "grace"})
    second = admin.post("/users", {"name": "grace"})

    assert first.json == second.json
    assert LoginLink.select().count() == 1
    stored = str(IdempotencyKey.get().response)
    token = re.search(r"asl_[\w-]+", first.json["link"])
    assert token is not None
    assert token.group() not in stored
    assert "grace" not in stored


def test_enrolment_tokens_are_repeated_not_remade(api: Api) -> None:
    """A lost answer costs no second token."""
    admin = api.admin("root")
    admin.post("/compute-resources", {"name": "box", "kind": "SLURM"})
    path = "/compute-resources/box/enrolment-tokens"

    first, second = (keyed(admin, "key-2").post(path) for _ in range(2))

    assert first.json["token"] == second.json["token"]
    assert EnrolmentToken.select().count() == 1


@pytest.mark.parametrize("key", ["", "x" * 129, "schlüssel", "a\tb"])
def test_keys_that_are_refused(api: Api, key: str) -> None:
    """A key is 1 to 128 printable characters."""
    answer = keyed(api.user("ada"), key).post("/projects", {"name": "spine"})

    assert answer.status_code == 422
    assert answer.json["code"] == "invalid_idempotency_key"
    assert not Project.select().exists()


def test_every_creating_post_repeats(api: Api) -> None:
    """Users, projects, members, resources: the same key, the same answer, one object."""
    admin = api.admin("root")
    bodies: dict[str, dict[str, Any]] = {
        "/users": {"name": "grace"},
        "/projects": {"name": "spine"},
        "/projects/spine/members": {"user": "grace", "role": "viewer"},
        "/compute-resources": {"name": "box", "kind": "SLURM"},
        "/users/grace/password-link": {},
    }

    for path, body in bodies.items():
        answers = [keyed(admin, f"key {path}").post(path, body) for _ in range(2)]

        assert [answer.status_code for answer in answers] == [201, 201], path
        assert answers[0].json == answers[1].json, path

    assert User.select().count() == 2
