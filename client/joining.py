"""Making this machine an agent: the server's own install script, run here."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from airavata_scheduler.client.errors import BadInputError, ClientError
from airavata_scheduler.client.transport import Transport


def join_here(
    transport: Transport, token: str, name: str | None, *, tell: Callable[[str], None]
) -> None:
    """Fetch install.sh and run it with the enrolment `token` in its environment.

    `name` is the agent's name, None for the host's. Raises `ClientError` when the script fails.
    """
    shell = shutil.which("sh")
    if shell is None:
        raise BadInputError("There is no sh here.", hint="Agents need a POSIX system.")
    response = transport.send("GET", "//install.sh", headers={"Accept": "*/*"}, authenticated=False)
    tell(f"Installing the agent from {transport.server}/install.sh")
    with tempfile.TemporaryDirectory(prefix="airavata-join-") as folder:
        script = Path(folder) / "install.sh"
        script.write_bytes(response.content)
        arguments = ["--name", name] if name else []
        # The token goes by the environment: a command line can be seen by everybody.
        environment = {**os.environ, "AIRAVATA_ENROLMENT_TOKEN": token}
        done = subprocess.run(
            [shell, str(script), *arguments], env=environment, check=False, stdin=None
        )
    if done.returncode != 0:
        raise ClientError(
            f"The agent could not be installed (exit status {done.returncode}).",
            reason="What the script printed above says why.",
            hint="Ask for a new token if it was used: airavata agent token RESOURCE",
        )
