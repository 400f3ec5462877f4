"""Every error that a user, an operator or an agent can meet.

AiravataError
├── BadInput             422  a value is wrong; `field` names it
├── Unauthenticated      401  who is calling is not known
├── Forbidden            403  known, but not allowed
├── NotFound             404  no such object, or one of another tenant
├── Conflict             409  the object's state does not allow it now
├── Gone                 410  it was there and has been used up
├── PreconditionFailed   412  the object changed since it was read
├── TooLarge             413  more bytes than this server takes
├── RateLimited          429  too many requests; `retry_after_s`
├── Unavailable          503  a dependency is away; `retry_after_s`
└── ConfigurationError    —   a setting stops the start

An error's docstring is its default message. A message names the cause and `hint` the next step.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FieldError:
    """One fault in a document: where, a stable code, and a sentence."""

    field: str
    code: str
    detail: str


class AiravataError(Exception):
    """Something went wrong."""

    status = 500
    code = "internal_error"

    def __init__(
        self,
        detail: str | None = None,
        *,
        code: str | None = None,
        field: str | None = None,
        hint: str | None = None,
        errors: list[FieldError] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.detail = detail or (type(self).__doc__ or "").strip().splitlines()[0]
        self.code = code or type(self).code
        self.field = field
        self.hint = hint
        self.errors = errors or []
        self.retry_after_s = retry_after_s
        super().__init__(self.detail)


class BadInput(AiravataError):
    """A value in the request is not valid."""

    status = 422
    code = "bad_input"


class Unauthenticated(AiravataError):
    """You are not logged in, or your token has ended."""

    status = 401
    code = "unauthenticated"


class Forbidden(AiravataError):
    """You are not allowed to do this."""

    status = 403
    code = "forbidden"


class NotFound(AiravataError):
    """There is no such object, or you may not see it."""

    status = 404
    code = "not_found"


class Conflict(AiravataError):
    """The object's present state does not allow this."""

    status = 409
    code = "conflict"


class Gone(AiravataError):
    """It existed, and has ended or has been used up."""

    status = 410
    code = "gone"


class PreconditionFailed(AiravataError):
    """The object was changed by somebody else since you read it."""

    status = 412
    code = "precondition_failed"


class TooLarge(AiravataError):
    """The request is larger than this server takes."""

    status = 413
    code = "too_large"


class RateLimited(AiravataError):
    """Too many requests."""

    status = 429
    code = "rate_limited"


class Unavailable(AiravataError):
    """Something that this request needs cannot be reached now."""

    status = 503
    code = "unavailable"


class ConfigurationError(AiravataError):
    """A setting is missing or malformed, so the program does not start."""

    code = "configuration"
