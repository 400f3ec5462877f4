"""What sharing to use does not give: the value itself, and accounts that nobody granted."""

from __future__ import annotations

from pathlib import Path

import pytest

from airavata_scheduler.backends import openbao, secret_collector
from airavata_scheduler.models.tables import ComputeResource
from tests.api import Api, LoggedIn, MakeApi
from tests.canaries import canary
from tests.credentials import authority
from tests.servers.tls import tls_server
from tests.work import Site

TOKEN = canary("powers")
ROOT = {"role": "airavata", "principal": "root"}


@pytest.fixture
def api(make_api: MakeApi, secrets_settings: dict[str, str]) -> Api:
    """The application with a real OpenBao behind it, which is nobody's yet."""
    made = make_api(**secrets_settings, OUTBOUND_ALLOW="127.0.0.0/8")
    openbao.secrets().delete(secret_collector.MARK)
    return made


@pytest.fixture
def ada(api: Api) -> LoggedIn:
    """Who owns the token."""
    return api.user("ada")


@pytest.fixture
def bob(api: Api, ada: LoggedIn) -> LoggedIn:
    """With whom ada's token is shared, to use it."""
    bob = api.user("bob")
    value = {"token": TOKEN, "ca": authority().pem}
    made = ada.post("/credentials", {"name": "t", "kind": "TOKEN", "value": value})
    assert made.status_code == 201, made.text
    shared = ada.post("/credentials/t/shares", {"user": "bob", "relation": "reader"})
    assert shared.status_code == 201, shared.text
    return bob


def test_a_token_is_not_sent_to_a_server_of_the_users_choice(bob: LoggedIn, tmp_path: Path) -> None:
    """Whoever may use it could read it there; who may see it anyway may."""
    with tls_server(tmp_path) as server:
        refused = bob.post("/credentials/t/test", {"target": server.target})

        assert (refused.status_code, refused.json["code"]) == (403, "target_needs_reveal")
        assert server.requests == []


def test_a_token_is_sent_where_it_is_bound(ada: LoggedIn, bob: LoggedIn, tmp_path: Path) -> None:
    """To the endpoint of its resource, and to no other resource's."""
    for name in ("bound", "other"):
        Site.make(name, agent=False)
    with tls_server(tmp_path) as server:
        ComputeResource.update(endpoint=server.target, kind="KUBERNETES").execute()
        assert ada.post("/credentials/t/bindings", {"compute": "bound"}).status_code == 201

        sent = bob.post("/credentials/t/test", {"compute": "bound"})
        refused = bob.post("/credentials/t/test", {"compute": "other"})
        owner = ada.post("/credentials/t/test", {"target": server.target})

        assert sent.status_code == owner.status_code == 200, sent.text
        assert (refused.status_code, refused.json["code"]) == (403, "target_needs_reveal")
        assert [asked for _, asked, _ in server.requests] == [f"Bearer {TOKEN}"] * 2


def test_only_administrators_say_whom_certificates_open(api: Api) -> None:
    """The authority is trusted by every host: root's name must not be a user's to write."""
    admin, ada = api.admin(), api.user("ada")
    body = {"name": "c", "kind": "SSH_CERTIFICATE", "value": ROOT}

    refused = ada.post("/credentials", body)
    made = admin.post("/credentials", body)
    shared = admin.post("/credentials/c/shares", {"user": "ada", "relation": "writer"})
    changed = ada.request("PUT", "/credentials/c/value", {"value": ROOT})

    assert (refused.status_code, refused.json["code"]) == (403, "forbidden")
    assert made.status_code == shared.status_code == 201, made.text
    assert (changed.status_code, changed.json["code"]) == (403, "forbidden")
