"""`airavata credential` and `airavata permission`, against the real application and OpenBao."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from airavata_scheduler.backends import openbao
from airavata_scheduler.models.configuration import Configuration
from tests.api import LoggedIn
from tests.canaries import PLANTED, canary
from tests.client_server import Ran, RunCommand, Served, command, run_here, served

__all__ = ["command", "served"]

SECRET = canary("cli")


@pytest.fixture(autouse=True)
def with_openbao(served: Served, secrets_settings: dict[str, str]) -> Iterator[None]:
    """The server keeps its secrets in a real OpenBao."""
    openbao.configure(Configuration.read(secrets_settings, dotenv=None))
    yield


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    """A file with a password."""
    file = tmp_path / f"{PLANTED}password"
    file.write_text(SECRET, encoding="utf-8")
    return file


def as_user(served: Served, user: LoggedIn, *arguments: str) -> Ran:
    """Run `airavata …` with another user's token, from a file."""
    token = served.folder / f"{user.name}.token"
    token.write_text(str(user.token), encoding="utf-8")
    return run_here(*arguments, "--token", f"@{token}", "--server", served.url)


def keep(command: RunCommand, file: Path, name: str = "cluster") -> Ran:
    """Keep a password as a credential."""
    return command(
        *("credential", "create", name, "--kind", "password", "--username", "ada"),
        *("--value", f"password=@{file}"),
    )


def test_the_life_of_a_credential(
    served: Served, command: RunCommand, password_file: Path, tmp_path: Path
) -> None:
    """Kept, listed, rotated, revealed, deleted; the value is printed by `reveal` alone."""
    made = keep(command, password_file)
    listed = command("credential", "list", "--json")
    shown = command("resource", "credential", "get", "cluster")
    password_file.write_text("another-" + SECRET, encoding="utf-8")
    rotated = command(
        *("credential", "rotate", "cluster", "--username", "ada"),
        *("--value", f"password=@{password_file}"),
    )
    history = command("credential", "history", "cluster", "--json")
    revealed = command("credential", "reveal", "cluster", "--field", "password")
    filed = command("credential", "reveal", "cluster", "--output", str(tmp_path / f"{PLANTED}out"))
    deleted = command("credential", "delete", "cluster")

    told = [made, listed, shown, rotated, history, filed, deleted]
    assert [ran.status for ran in [*told, revealed]] == [0] * 8, [ran.err for ran in told]
    assert not any(SECRET in ran.out + ran.err for ran in told)
    assert revealed.out == f"another-{SECRET}\n"
    assert "secret" in revealed.err
    assert (tmp_path / f"{PLANTED}out").stat().st_mode & 0o777 == 0o600
    states = [item["state"] for item in json.loads(history.out)["items"]]
    assert states == ["current", "previous"]
    assert command("credential", "get", "cluster").status == 4


def test_a_secret_on_the_command_line_is_refused(served: Served, command: RunCommand) -> None:
    """With the way to do it, and without saying it again."""
    ran = command(
        "credential", "create", "x", "--kind", "PASSWORD", "--value", f"password={SECRET}"
    )

    assert ran.status == 2
    assert "every user of the machine" in ran.err
    assert SECRET not in ran.err
    assert len(ran.err.strip().splitlines()) <= 3


def test_a_wrong_value_names_its_field(
    served: Served, command: RunCommand, password_file: Path
) -> None:
    """And never the value."""
    ran = command(
        "credential", "create", "k", "--kind", "SSH_KEY", "--value", f"private_key=@{password_file}"
    )

    assert ran.status == 2
    assert "private_key" in ran.err
    assert SECRET not in ran.out + ran.err


def test_a_key_pair_is_made_on_the_server(served: Served, command: RunCommand) -> None:
    """Its public part is shown."""
    ran = command("credential", "create", "k", "--kind", "SSH_KEY", "--generate", "--json")

    assert ran.status == 0, ran.err
    assert json.loads(ran.out)["public"]["public_key"].startswith("ssh-ed25519 ")
    assert "PRIVATE" not in ran.out


def test_share_use_and_revoke_across_two_projects(
    served: Served, command: RunCommand, password_file: Path
) -> None:
    """A group of another project may use it, until it may not: the next command says so."""
    bob = served.api.user("bob")
    served.api.project(bob, "elsewhere")
    as_user(served, bob, "group", "create", "lab")
    site = served.site()
    keep(command, password_file)
    bound = command("resource", "bind-credential", site.name, "cluster")
    none = as_user(served, bob, "credential", "explain", "--compute", site.name)
    unseen = as_user(served, bob, "credential", "get", "cluster")
    command("credential", "share", "cluster", "--group", "lab")
    used = as_user(served, bob, "credential", "explain", "--compute", site.name, "--json")
    why = as_user(served, bob, "permission", "explain", "credential:cluster", "use")
    no = as_user(served, bob, "permission", "check", "credential:cluster", "reveal")
    revealed = as_user(served, bob, "credential", "reveal", "cluster")
    command("credential", "unshare", "cluster", "--group", "lab")
    ended = as_user(served, bob, "credential", "get", "cluster")
    after = as_user(served, bob, "credential", "explain", "--compute", site.name, "--json")

    assert bound.status == 0, bound.err
    assert "none is shared with you" in none.out
    assert unseen.status == ended.status == 4
    assert json.loads(used.out)["chosen"] is not None
    assert "bob may use the credential cluster." in why.out
    assert "is in the group lab" in why.out
    assert no.status == 1
    assert revealed.status == 3
    assert json.loads(after.out)["chosen"] is None


def test_asking_about_others_takes_managing(served: Served, command: RunCommand) -> None:
    """Ada may ask what bob may do in her project; bob may not ask about ada."""
    bob = served.api.user("bob")
    command("project", "add-member", "spine", "bob", "--role", "viewer")

    asked = command("permission", "explain", "project:spine", "create", "--user", "bob")
    refused = as_user(served, bob, "permission", "check", "project:spine", "read", "--user", "ada")
    own = as_user(served, bob, "permission", "list", "project")
    unknown = command("permission", "check", "project:spine", "fly")

    assert asked.status == 0, asked.err
    assert "bob may not create the project spine" in asked.out
    assert "bob is viewer of the project spine." in asked.out
    assert refused.status == 3
    assert "spine" in own.out
    assert unknown.status == 2
    assert "There are:" in unknown.err


def test_who_am_i(served: Served, command: RunCommand) -> None:
    """With projects, groups and roles."""
    command("group", "create", "lab")

    ran = command("whoami")

    assert "ada (administrator)" in ran.out
    assert "projects: spine (owner)" in ran.out
    assert "groups: lab (owner)" in ran.out


def test_the_audit_of_it_all(
    served: Served, command: RunCommand, password_file: Path, tmp_path: Path
) -> None:
    """Every deed on the credential is there, and never the value."""
    keep(command, password_file)
    command("credential", "reveal", "cluster")

    listed = command("audit", "list", "--object", "credential:cluster", "--json")
    exported = command("audit", "export", "--output", str(tmp_path / "audit.ndjson"))
    verified = command("audit", "verify", str(tmp_path / "audit.ndjson"))

    actions = [item["action"] for item in json.loads(listed.out)["items"]]
    assert actions == ["reveal", "create"]
    assert exported.status == verified.status == 0, exported.err + verified.err
    assert "are good" in verified.out
    assert SECRET not in listed.out + (tmp_path / "audit.ndjson").read_text(encoding="utf-8")
