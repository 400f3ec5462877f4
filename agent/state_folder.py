"""The agent's own folder: 0700, files 0600, opened without following links, one agent at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from airavata_scheduler.agent.faults import FolderBusy, NotEnrolled, UnsafeFolder
from airavata_scheduler.agent.folder_marks import mark_of
from airavata_scheduler.agent.framing import compact, read_json, replace_file, sync_folder


@dataclass(frozen=True)
class Identity:
    """Who this agent is. `secret` proves it; the server knows only its SHA-256.

    `next_secret` exists only between the two phases of a rotation.
    """

    agent_id: str
    name: str
    compute: str
    api_url: str
    secret: str = dataclasses.field(repr=False)
    state: str = "active"
    approval_code: str | None = None
    next_secret: str | None = dataclasses.field(default=None, repr=False)
    rotated_at: float = 0.0


def host_id() -> str:
    """A name of this host that survives reboots: the machine id, else the host's name."""
    with contextlib.suppress(OSError):
        text = Path("/etc/machine-id").read_text(encoding="ascii").strip()
        if text and text != "uninitialized":
            return text
    return os.uname().nodename


class StateFolder:
    """Opened and checked; `lock` makes this process its only agent."""

    def __init__(self, path: Path) -> None:
        """Create or check `path`. Raises UnsafeFolder when another user could interfere."""
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = path.lstat()
        except OSError as error:
            raise UnsafeFolder(
                f"The state folder {path} cannot be made: {error.strerror}. "
                "Set AIRAVATA_AGENT_HOME to a folder of your own."
            ) from error
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise UnsafeFolder(
                f"The state folder {path} is a link or belongs to another user. "
                "Set AIRAVATA_AGENT_HOME to a folder of your own."
            )
        if status.st_mode & 0o077:
            path.chmod(0o700)
        self._lock_fd: int | None = None

    @property
    def id(self) -> str:
        """A random name of this folder; a copy of the folder carries it along, on purpose."""
        path = self.path / "folder-id"
        with contextlib.suppress(FileExistsError):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "w") as file:
                file.write(secrets.token_hex(16))
        return path.read_text(encoding="ascii")

    @property
    def place(self) -> str:
        """This very folder on this host; neither a copy nor the same folder elsewhere has it."""
        journal = self.path / "journal"
        journal.mkdir(mode=0o700, exist_ok=True)
        return f"{host_id()}:{mark_of(journal)}"

    def lock(self, *, take_over: bool = False) -> None:
        """Become the folder's only agent until this process ends.

        Raises FolderBusy, or UnsafeFolder when the folder was last used on another host: a lock on
        a network file system does not always hold between hosts. `take_over` is the person's word
        that the agent there is stopped for good.
        """
        fd = os.open(
            self.path / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            raise FolderBusy(
                f"Another agent runs with the state folder {self.path}. `status` shows it; a "
                "second agent on this machine needs its own AIRAVATA_AGENT_HOME."
            ) from error
        last = _json_or_empty(os.pread(fd, 4096, 0))
        here = host_id()
        if last.get("host", here) != here and not take_over:
            os.close(fd)
            raise UnsafeFolder(
                f"The state folder {self.path} was last used on host {last.get('name')}. If no "
                "agent runs there any more, start once with --take-over; else set another "
                "AIRAVATA_AGENT_HOME."
            )
        os.ftruncate(fd, 0)
        os.pwrite(fd, compact({"host": here, "name": os.uname().nodename, "pid": os.getpid()}), 0)
        self._lock_fd = fd

    def unlock(self) -> None:
        """Let another agent have the folder."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def identity(self) -> Identity:
        """Who we are. Raises NotEnrolled when the folder has no identity yet."""
        found = self.find_identity()
        if found is None:
            raise NotEnrolled(
                f"No identity in {self.path}. Get a token (`airavata agent token RESOURCE`) and "
                "run `enroll` with the token on standard input."
            )
        return found

    def find_identity(self) -> Identity | None:
        """Who we are, or None."""
        document = read_json(self.path / "identity.json")
        if document is None:
            return None
        known = {item.name for item in dataclasses.fields(Identity)}
        return Identity(**{key: value for key, value in document.items() if key in known})

    def keep_identity(self, identity: Identity) -> None:
        """Store the identity durably, before anything depends on it."""
        replace_file(
            self.path / "identity.json", compact(dataclasses.asdict(identity)), durable=True
        )
        sync_folder(self.path)

    def pending_secret(self) -> str:
        """The secret of an enrolment under way: the same again after a lost answer or a crash."""
        path = self.path / "enrolling.json"
        known = read_json(path)
        if known is not None:
            return str(known["secret"])
        secret = secrets.token_hex(32)
        replace_file(path, compact({"secret": secret}), durable=True)
        sync_folder(self.path)
        return secret

    def end_enrolment(self) -> None:
        """Forget the enrolment's draft; the identity holds the secret now."""
        with contextlib.suppress(FileNotFoundError):
            (self.path / "enrolling.json").unlink()

    def wipe_identity(self) -> None:
        """Forget who we are (revoked or unenrolled)."""
        for name in ("identity.json", "enrolling.json"):
            with contextlib.suppress(FileNotFoundError):
                (self.path / name).unlink()


def _json_or_empty(data: bytes) -> dict[str, str]:
    try:
        value = json.loads(data or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
