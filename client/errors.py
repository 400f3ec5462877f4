"""Everything that can go wrong for a user of the client, in one tree.

    ClientError
    ├── BadInputError          the request or the command was wrong               exit 2
    │   └── ConflictError      somebody changed the object first, or it exists
    ├── NotAllowedError        not logged in, or no right to it                   exit 3
    ├── NotFoundError          no such object                                     exit 4
    ├── UnreachableError       the server did not answer                          exit 5
    │   └── BusyError          it answered "later" for longer than we wait
    ├── WaitTimeoutError       the work goes on, only the waiting ended           exit 6
    ├── WorkFailedError        a task or an experiment failed                     exit 1
    │   └── RemoteError        a Python function raised; carries the remote traceback
    └── IntegrityError         bytes that arrived are not the bytes that were sent  exit 1

The class docstring's first line is the default message. The server's problem details (RFC 9457)
become these by `from_problem`; the command line prints them in three lines at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ClientError(Exception):
    """The request failed."""

    exit_code = 1

    def __init__(
        self,
        message: str | None = None,
        *,
        reason: str | None = None,
        hint: str | None = None,
        code: str | None = None,
        status: int | None = None,
        field: str | None = None,
        request_id: str | None = None,
    ) -> None:
        """Say what failed (`message`), why (`reason`) and what to do next (`hint`).

        `code` and `status` are the server's stable code and HTTP status, None where the server was
        not asked.
        """
        self.message = message or (type(self).__doc__ or "").splitlines()[0]
        self.reason = reason
        self.hint = hint
        self.code = code
        self.status = status
        self.field = field
        self.request_id = request_id
        super().__init__(self.message)

    def __str__(self) -> str:
        return " ".join(part for part in (self.message, self.reason, self.hint) if part)

    def to_json(self) -> dict[str, Any]:
        """The error as `--json` prints it; keys without a value are left out."""
        values = {
            "message": self.message,
            "reason": self.reason,
            "hint": self.hint,
            "code": self.code,
            "status": self.status,
            "field": self.field,
            "request_id": self.request_id,
            "exit_code": self.exit_code,
        }
        return {name: value for name, value in values.items() if value is not None}


class BadInputError(ClientError):
    """The input is not valid."""

    exit_code = 2


class ConflictError(BadInputError):
    """The object was changed by somebody else, or is in a state that forbids this."""


class NotAllowedError(ClientError):
    """You are not logged in, or may not do this."""

    exit_code = 3


class NotFoundError(ClientError):
    """There is no such object."""

    exit_code = 4


class UnreachableError(ClientError):
    """The server cannot be reached."""

    exit_code = 5


class BusyError(UnreachableError):
    """The server asked to come back later for longer than this command waits."""


class WaitTimeoutError(ClientError):
    """The wait ended before the work did; the work goes on."""

    exit_code = 6


class WorkFailedError(ClientError):
    """The work failed."""

    exit_code = 1


class RemoteError(WorkFailedError):
    """A function raised an exception on the agent.

    `remote_traceback` is the text that Python printed there, None when the task died without one.
    """

    def __init__(
        self, message: str, *, remote_traceback: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.remote_traceback = remote_traceback

    def __str__(self) -> str:
        if self.remote_traceback:
            return f"{self.message}\n\n{self.remote_traceback.rstrip()}"
        return self.message


class IntegrityError(ClientError):
    """What arrived is not what was sent."""

    exit_code = 1


_BY_STATUS: dict[int, type[ClientError]] = {
    401: NotAllowedError,
    403: NotAllowedError,
    404: NotFoundError,
    409: ConflictError,
    410: NotFoundError,
    412: ConflictError,
    429: BusyError,
    502: UnreachableError,
    503: BusyError,
    504: UnreachableError,
}


def _class_for(status: int) -> type[ClientError]:
    """The class of an HTTP status: the table, else bad input for 4xx and the base for the rest."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return BadInputError if 400 <= status < 500 else ClientError


def _all_details(problem: Mapping[str, Any]) -> str | None:
    """The problem's `errors`, one per bad field, as one line; None where there is at most one."""
    errors = [entry for entry in problem.get("errors") or [] if isinstance(entry, Mapping)]
    if len(errors) < 2:
        return None
    # The problem's own detail may have told the first.
    told = str(problem.get("detail") or "")
    errors = [entry for entry in errors if str(entry.get("detail")) not in told]
    shown = [f"{entry.get('field')}: {entry.get('detail')}" for entry in errors[:5]]
    more = f" (and {len(errors) - 5} more)" if len(errors) > 5 else ""
    return "; ".join(shown) + more


def from_problem(status: int, problem: Mapping[str, Any]) -> ClientError:
    """The exception for an answer of `status` with the body `problem` (which may be empty)."""
    title = str(problem.get("title") or f"The server answered {status}.")
    detail = problem.get("detail")
    every = _all_details(problem)
    field = problem.get("field")
    message = str(detail) if detail else title
    if field and every is None and str(field) not in message:
        message = f"{field}: {message}"
    hint = problem.get("hint")
    if hint is not None and str(hint) in message:
        hint = None
    if hint is None and status == 401:
        hint = "Log in: airavata auth login"
    if status >= 500 and problem.get("request_id"):
        hint = hint or f"Tell your operator this request id: {problem['request_id']}"
    return _class_for(status)(
        message,
        reason=every,
        hint=str(hint) if hint else None,
        code=problem.get("code"),
        status=status,
        field=field,
        request_id=problem.get("request_id"),
    )
