"""The agent's exit codes and its one tree of errors.

Every message names the cause and the next step; a supervisor may rely on the exit codes.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What the agent's process ends with. Stable; documented in docs/agent.md."""

    DONE = 0  # stopped or drained as asked
    FAILED = 1  # an unexpected fault, or `doctor` found a failure
    USAGE = 2  # wrong usage or a malformed setting
    NOT_ALLOWED = 3  # revoked, or the enrolment token was refused
    NOT_ENROLLED = 4  # this state folder has no identity
    UNREACHABLE = 5  # the API cannot be reached
    BUSY = 6  # another agent runs in this state folder
    SUPERSEDED = 7  # a newer session of the same agent runs elsewhere
    FOREIGN_FOLDER = 8  # the state folder is unsafe, or was last used on another host
    DISK = 9  # the journal cannot be written


class AgentFault(Exception):
    """The agent cannot go on."""

    exit_code = Exit.FAILED
    code = "agent_fault"

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (self.__doc__ or "").strip())


class BadSetting(AgentFault):
    """A setting is malformed."""

    exit_code = Exit.USAGE
    code = "bad_setting"


class NotAllowed(AgentFault):
    """The API refused this agent."""

    exit_code = Exit.NOT_ALLOWED
    code = "not_allowed"


class Revoked(NotAllowed):
    """This agent was revoked; enrol again with a new token if that was a mistake."""

    code = "agent_revoked"


class NotEnrolled(AgentFault):
    """This state folder has no identity; run `enroll` first."""

    exit_code = Exit.NOT_ENROLLED
    code = "not_enrolled"


class Unreachable(AgentFault):
    """The API cannot be reached."""

    exit_code = Exit.UNREACHABLE
    code = "unreachable"


class FolderBusy(AgentFault):
    """Another agent runs in this state folder."""

    exit_code = Exit.BUSY
    code = "folder_busy"


class Superseded(AgentFault):
    """A newer session of this agent runs elsewhere; is the state folder cloned?"""

    exit_code = Exit.SUPERSEDED
    code = "session_superseded"


class SessionLost(AgentFault):
    """The session ended on the server; a new one is opened with the full list of leases.

    `session_id` is the one that the call named: another loop may have opened a newer one meanwhile.
    """

    code = "session_lost"
    session_id = ""


class UnsafeFolder(AgentFault):
    """The state folder is not safe to use."""

    exit_code = Exit.FOREIGN_FOLDER
    code = "unsafe_folder"


class JournalBroken(AgentFault):
    """The journal cannot be written, so nothing more may be started or acknowledged."""

    exit_code = Exit.DISK
    code = "journal_broken"


class Stopping(AgentFault):
    """The agent was asked to stop while a call was under way."""

    exit_code = Exit.DONE
    code = "stopping"


class Refused(AgentFault):
    """The API answered with a problem that a retry does not mend.

    `status` is the HTTP status (0 when there is none), `code` the problem's stable code, `body`
    the problem as the API sent it.
    """

    def __init__(self, status: int, code: str, detail: str, body: dict[str, object]) -> None:
        super().__init__(f"{detail} ({status} {code})")
        self.status = status
        self.code = code
        self.body = body
