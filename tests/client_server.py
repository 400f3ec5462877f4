"""The real application on SQLite behind a real socket, for the tests of the client.

`served` gives its address, a user who is logged in, and the command line run in this process.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog
from werkzeug.serving import make_server

from airavata_scheduler.backends.stores import ensure_default_storage
from airavata_scheduler.client.api import Client
from airavata_scheduler.client.command_line import Session, run
from airavata_scheduler.client.main import airavata
from airavata_scheduler.client.profile import write_profile
from airavata_scheduler.functions import streams
from airavata_scheduler.functions.app import create_app
from airavata_scheduler.models import database
from tests.api import Api, Caller, LoggedIn, configuration, refill
from tests.conftest import with_tables
from tests.servers.spicedb import SpiceDBTesting
from tests.work import Site


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str


@dataclass(frozen=True, kw_only=True)
class Served:
    """A server, its administrator `ada`, her project `spine`, and her profile."""

    url: str
    api: Api
    ada: LoggedIn
    folder: Path
    clients: list[Client] = field(default_factory=list)

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a command: only the profile's folder."""
        return {"AIRAVATA_CONFIG_DIR": str(self.folder)}

    def client(self, **options: Any) -> Client:
        """An SDK client with ada's profile."""
        made = Client(environ=self.environ, **options)
        self.clients.append(made)
        return made

    def site(self, name: str = "cluster", *, agent: bool = True) -> Site:
        """A compute resource whose agent the test plays."""
        made = Site.make(name, agent=agent)
        refill()
        return made


RunCommand = Callable[..., Ran]


@pytest.fixture
def served(
    sqlite_url: str, tmp_path: Path, spicedb_testing_server: SpiceDBTesting
) -> Iterator[Served]:
    """The application, listening on a free port of the loopback."""
    # The server's log lines must not end up in what a command of this process prints.
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with_tables(sqlite_url)
    database.connect(sqlite_url)
    config = configuration(
        sqlite_url,
        tmp_path,
        API_THREADS="64",
        SPICEDB_ENDPOINT=spicedb_testing_server.endpoint,
    )
    ensure_default_storage(config)
    app = create_app(config)
    refill()
    app.testing = False
    api = Api(app=app, config=config, nobody=Caller(client=app.test_client()))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    # Its end waits for requests that are under way: their connections are about to be closed.
    server.daemon_threads = False  # type: ignore[attr-defined]  # of the threading mix-in
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    ada = api.admin("ada")
    api.project(ada)
    folder = tmp_path / "config"
    write_profile(
        folder,
        server=url,
        access_token=ada.tokens["access_token"],
        refresh_token=ada.tokens["refresh_token"],
        expires_in=ada.tokens["expires_in"],
        user="ada",
        project="spine",
    )
    made = Served(url=url, api=api, ada=ada, folder=folder)
    yield made
    for client in made.clients:
        client.close()
    streams.end_all()
    server.shutdown()
    server.server_close()
    thread.join()
    structlog.reset_defaults()


@pytest.fixture
def command(served: Served, monkeypatch: pytest.MonkeyPatch) -> RunCommand:
    """Run `airavata …` in this process as ada: `command("project", "list")`."""
    for name in ("AIRAVATA_SERVER", "AIRAVATA_TOKEN", "AIRAVATA_PROJECT", "AIRAVATA_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AIRAVATA_CONFIG_DIR", str(served.folder))

    def run_command(*arguments: str, stdin: str = "") -> Ran:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        return run_here(*arguments)

    return run_command


def run_here(*arguments: str) -> Ran:
    """Run `airavata …` in this process with the environment as it is."""
    out, err = _Stream(), _Stream()
    session = Session()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run(airavata, list(arguments), session)
    if "client" in session.__dict__:
        session.client.close()
    return Ran(status=status, out=out.text(), err=err.text())


class _Stream(io.TextIOWrapper):
    """A text stream in memory with a `buffer`, as standard output has one."""

    def __init__(self) -> None:
        self._memory = io.BytesIO()
        super().__init__(self._memory, encoding="utf-8", write_through=True)

    def text(self) -> str:
        """What was written."""
        return self._memory.getvalue().decode()
