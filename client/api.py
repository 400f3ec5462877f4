"""The typed SDK's front door.

from airavata_scheduler.client.api import Client

with Client() as client:
    experiment = client.experiments.submit_file("sweep.yml", project=client.project)
    client.experiments.wait(experiment.id)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Self

import httpx

from airavata_scheduler.client.api_accounts import AccessTokens, Logins, SecondFactor, Sessions
from airavata_scheduler.client.api_audit import Audit
from airavata_scheduler.client.api_credentials import Credentials
from airavata_scheduler.client.api_functions import Blobs, Calls, Functions
from airavata_scheduler.client.api_people import Groups, Projects, Users
from airavata_scheduler.client.api_permissions import Permissions
from airavata_scheduler.client.api_sites import Agents, ComputeResources, StorageResources
from airavata_scheduler.client.api_work import Artifacts, Experiments, Tasks
from airavata_scheduler.client.errors import BadInputError, ClientError
from airavata_scheduler.client.profile import Settings, TokenSource
from airavata_scheduler.client.retries import RETRY_FOR_S
from airavata_scheduler.client.transport import Transport


class Client:
    """One server, as one user. Threads may share it; close it, or use it in a `with`.

    Settings that are not given come from the environment, then from the profile (`airavata auth
    login` writes it). `http` replaces the network in tests.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        token: str | None = None,
        project: str | None = None,
        config_dir: str | Path | None = None,
        environ: Mapping[str, str] | None = None,
        retry_for_s: float = RETRY_FOR_S,
        away_for_s: float | None = None,
        on_wait: Callable[[ClientError], None] = lambda _: None,
        http: httpx.BaseTransport | None = None,
    ) -> None:
        """Settle the settings; nothing is sent yet. Raises `BadInputError` for a wrong one.

        `retry_for_s` is how long a request is repeated while the server is away or busy;
        `away_for_s` where it never answered, the same if not given, and never longer. `on_wait` is
        told what is being waited for, once a request, where it takes longer than a moment.
        """
        self.settings = Settings.resolve(
            os.environ if environ is None else environ,
            {
                "server": server,
                "token": token,
                "project": project,
                "config_dir": None if config_dir is None else str(config_dir),
            },
        )
        self.transport = Transport(
            self.settings.server,
            TokenSource(self.settings),
            http=http,
            retry_for_s=retry_for_s,
            away_for_s=away_for_s,
            on_wait=on_wait,
        )
        self.logins = Logins(self.transport, self.settings.profile)
        self.sessions = Sessions(self.transport)
        self.access_tokens = AccessTokens(self.transport)
        self.second_factor = SecondFactor(self.transport)
        self.audit = Audit(self.transport)
        self.users = Users(self.transport)
        self.groups = Groups(self.transport)
        self.projects = Projects(self.transport)
        self.credentials = Credentials(self.transport)
        self.permissions = Permissions(self.transport)
        self.compute = ComputeResources(self.transport)
        self.storage = StorageResources(self.transport)
        self.agents = Agents(self.transport)
        self.functions = Functions(self.transport)
        self.calls = Calls(self.transport)
        self.blobs = Blobs(self.transport)
        self.experiments = Experiments(self.transport)
        self.tasks = Tasks(self.transport)
        self.artifacts = Artifacts(self.transport)

    @cached_property
    def project(self) -> str:
        """The project to work in: the setting, else the only one that we are a member of.

        Raises `BadInputError` when there is none, or more than one.
        """
        if self.settings.project:
            return self.settings.project
        names = [project.name for project in self.users.my_projects()]
        if len(names) == 1:
            return names[0]
        if not names:
            raise BadInputError(
                "You have no project yet.",
                reason="Experiments and functions belong to one.",
                hint="airavata project create NAME",
            )
        shown = ", ".join(sorted(names)[:5]) + ("…" if len(names) > 5 else "")
        raise BadInputError(
            f"You are in {len(names)} projects ({shown}); name the one to use.",
            hint="--project NAME, or once for all: airavata config set project NAME",
        )

    def close(self) -> None:
        """Close the connections."""
        self.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
