"""An OpenBao that is set up for the scheduler, for a module of tests to seal, kill and restore."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from airavata_scheduler.backends import openbao_setup
from airavata_scheduler.backends.openbao import OpenBao as Secrets
from airavata_scheduler.backends.openbao_http import Server
from airavata_scheduler.backends.openbao_login import LoggedIn, login_of
from airavata_scheduler.backends.private_files import write_whole
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.ids import new_id
from tests.servers.openbao import OpenBao
from tests.servers.programs import running, server_folder

_numbers = itertools.count(1)


@dataclass(kw_only=True)
class Store:
    """The server, and any number of processes' accesses to it."""

    bao: OpenBao
    folder: Path
    role_id: str = ""
    opened: list[Secrets] = field(default_factory=list)

    def set_up(self) -> None:
        """Make what the scheduler needs."""
        with self.bao.client() as root:
            self.role_id = openbao_setup.set_up(root, self.server).role_id

    @property
    def server(self) -> Server:
        """Where it is, with the default names."""
        return Server.of(self.configuration())

    def configuration(self, **settings: str) -> Configuration:
        """A configuration that names it, with a login only where `settings` have one."""
        where = {"OPENBAO_ADDR": self.bao.address, "OPENBAO_CA_FILE": str(self.bao.ca_file)}
        return Configuration.read(where | settings, dotenv=None)

    def login(self, file: Path | None = None) -> dict[str, str]:
        """The settings of an AppRole login, with a new wrapped secret id unless there is a file."""
        if file is None:
            file = self.folder / f"secret-id-{next(_numbers)}"
            write_whole(file, self.wrapped_secret_id().encode(), 0o600)
        return {"OPENBAO_ROLE_ID": self.role_id, "OPENBAO_SECRET_ID_FILE": str(file)}

    def wrapped_secret_id(self) -> str:
        """A new one."""
        with self.bao.client() as root:
            return openbao_setup.wrapped_secret_id(root)

    def token(self, *policies: str, **how: Any) -> str:
        """A new token with these policies; the scheduler's if none is named."""
        with self.bao.client() as root:
            made = root.auth.token.create(
                policies=list(policies) or [openbao_setup.POLICY], no_default_policy=True, **how
            )
        return str(made["auth"]["client_token"])

    def secrets(self, **settings: str) -> Secrets:
        """Another process's access; by a login of its own unless `settings` say which."""
        configuration = self.configuration(**(settings or self.login()))
        session = LoggedIn(server=self.server, login=login_of(configuration))
        made = Secrets(server=self.server, session=session)
        self.opened.append(made)
        return made

    def root(self) -> Any:
        """A client that may do everything."""
        return self.bao.client()


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A value as the database would name it."""

    path: str
    version: int
    write_id: str


def keep(secrets: Secrets, text: str, *, path: str | None = None, expected: int = 0) -> Kept:
    """Write a value."""
    path, write_id = path or new_id(), new_id()
    version = secrets.write(path, {"password": text}, write_id=write_id, expected=expected)
    return Kept(path=path, version=version, write_id=write_id)


def kept(secrets: Secrets, value: Kept) -> str:
    """Read it back."""
    return secrets.read(value.path, version=value.version, write_id=value.write_id)["password"]


@pytest.fixture(scope="module")
def store_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One for the module's tests."""
    with server_folder("openbao") as folder, running(OpenBao(folder)) as bao:
        store = Store(bao=bao, folder=tmp_path_factory.mktemp("secret-ids"))
        store.set_up()
        yield store


@pytest.fixture
def store(store_server: Store) -> Iterator[Store]:
    """The module's server; logins of the test end with it."""
    yield store_server
    for secrets in store_server.opened:
        secrets.session.end()
    store_server.opened.clear()
