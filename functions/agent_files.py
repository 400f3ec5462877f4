"""The agent's one file with its hash, and the script that installs it.

Both are public: the file is the same for everybody and holds no secret, and what installs an agent
needs a token besides. The hash is written into the script, so the file is checked before it runs.
"""

from __future__ import annotations

import hashlib
import shlex
import threading
from pathlib import Path
from typing import Final

from flask import Response
from flask_openapi3 import APIBlueprint

from airavata_scheduler.functions import tokens
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.errors import Unavailable

PROGRAM: Final = "airavata-agent.pyz"
CHECKSUM_HEADER: Final = "X-Checksum-Sha256"
_TEMPLATE: Final = Path(__file__).parent / "install.sh"

api = APIBlueprint("agent_files", __name__)


class _Program:
    """The agent's file as this process last read it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stamp: tuple[Path, int, int] | None = None
        self.data = b""
        self.sha256 = ""

    def read(self, path: Path) -> tuple[bytes, str]:
        """The bytes and their SHA-256; read anew when the file was replaced."""
        status = path.stat()
        stamp = (path, status.st_mtime_ns, status.st_size)
        with self.lock:
            if stamp != self.stamp:
                self.data = path.read_bytes()
                self.sha256 = hashlib.sha256(self.data).hexdigest()
                self.stamp = stamp
            return self.data, self.sha256


_program = _Program()


@api.get("/agent/v1/download")
def download() -> Response:
    """The agent: one file that `python3` (3.9 or newer) runs."""
    data, sha256 = _read()
    response = Response(data, mimetype="application/octet-stream")
    response.headers[CHECKSUM_HEADER] = sha256
    response.headers.set("Content-Disposition", "attachment", filename=PROGRAM)
    response.set_etag(sha256)
    return response


@api.get("/agent/v1/download.sha256")
def checksum() -> Response:
    """The agent's SHA-256, in the form that `sha256sum --check` reads."""
    return Response(f"{_read()[1]}  {PROGRAM}\n", mimetype="text/plain")


@api.get("/agent/v1/install.sh")
def install_script() -> Response:
    """The script that installs, enrols and starts an agent for one user."""
    return _script()


@api.get("/install.sh", doc_ui=False)
def install_script_at_root() -> Response:
    """The same at the address that people type."""
    return _script()


def _script() -> Response:
    text = rendered(tokens.configuration(), _read()[1])
    return Response(text, mimetype="text/x-shellscript")


def rendered(config: Configuration, sha256: str) -> str:
    """install.sh for this scheduler; `sha256` is that of the agent's file (hex)."""
    url = config.agent_url.rstrip("/")
    authority = ""
    if config.agent_ca_file is not None:
        authority = _authority(config.agent_ca_file.read_text(encoding="ascii"))
    text = _TEMPLATE.read_text(encoding="utf-8")
    for mark, value in (
        ("@URL@", url),
        ("@QUOTED_URL@", shlex.quote(url)),
        ("@SHA256@", sha256),
        ("@AUTHORITY@", authority),
    ):
        text = text.replace(mark, value)
    return text


def _authority(certificates: str) -> str:
    """The lines that write the private authority's certificates beside the agent."""
    return (
        '    authority="$home/ca.pem"\n'
        "    cat >\"$authority\" <<'CERTIFICATES'\n"
        f"{certificates.strip()}\n"
        "CERTIFICATES\n"
    )


def _read() -> tuple[bytes, str]:
    path = tokens.configuration().agent_file
    try:
        if path is not None:
            return _program.read(path)
    except OSError as error:
        raise _no_program(f"AGENT_FILE {path} cannot be read: {error.strerror}.") from error
    raise _no_program("AGENT_FILE is not set.")


def _no_program(why: str) -> Unavailable:
    return Unavailable(
        f"This server has no agent to give out: {why}",
        code="agent_file_missing",
        hint="The operator sets AGENT_FILE, or starts by `airavata-scheduler server`.",
        retry_after_s=60,
    )
