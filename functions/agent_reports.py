"""Reports: how attempts ended, up to 500 at a time, each with a verdict of its own.

Nothing that one item says can block the others: an item that cannot be read gets `invalid`.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Literal

from pydantic import Field, ValidationError

from airavata_scheduler.functions import agent_identity, forgotten_uploads
from airavata_scheduler.functions.agent_bodies import lenient_document
from airavata_scheduler.functions.agent_lease_access import AgentBody, blueprint, lease_named
from airavata_scheduler.functions.agent_leases import ClaimBody, claim_answer
from airavata_scheduler.models import epoch, history, leases
from airavata_scheduler.models.errors import AiravataError
from airavata_scheduler.models.lease_records import (
    InlineLog,
    Report,
    ReportedArtifact,
    ReportVerdict,
)
from airavata_scheduler.queue.announce import announce

MAX_REPORTS = 500
MAX_INLINE_LOG_BYTES = 8192
MAX_RESULT_CHARS = 65_536
MAX_ARTIFACTS = 20_000
MAX_MESSAGE_CHARS = 8192
LONGEST_MS = 2**53
OUTPUT_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,254}$"  # as documents name them; people read it

api = blueprint("agent_reports")


class Failure(AgentBody):
    """Why the attempt did not succeed."""

    kind: Literal["user", "infrastructure", "limit", "policy"] = "user"
    code: str = Field("failed", pattern=r"^[a-z][a-z0-9_]{0,63}$")
    message: str = ""
    traceback: str | None = None


class Usage(AgentBody):
    """What the payload used."""

    cpu_s: float | None = Field(None, allow_inf_nan=False)
    max_rss_kb: int | None = None


class StreamLog(AgentBody):
    """One stream; `data` (base64) only where nothing of it was streamed."""

    size: int = Field(0, ge=0, le=LONGEST_MS)
    data: str | None = None
    truncated: bool = False


class ArtifactItem(AgentBody):
    """One uploaded file."""

    output: str = Field(pattern=OUTPUT_NAME)
    path: str = Field(min_length=1, max_length=4096)
    size: int = Field(ge=0, le=LONGEST_MS)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class ReportItem(AgentBody):
    """How one attempt ended."""

    lease: str
    outcome: Literal["completed", "failed", "cancelled", "refused", "lost"]
    failure: Failure | None = None
    exit_code: int | None = Field(None, ge=-(2**31), le=2**31 - 1)
    signal: int | None = Field(None, ge=0, le=255)
    duration_s: float | None = Field(None, allow_inf_nan=False)
    age_s: float | None = Field(None, allow_inf_nan=False)
    usage: Usage | None = None
    result: dict[str, Any] | None = None
    logs: dict[Literal["stdout", "stderr"], StreamLog] = Field(default_factory=dict)
    artifacts: list[ArtifactItem] = Field(default_factory=list, max_length=MAX_ARTIFACTS)


class ReportsBody(AgentBody):
    """A batch of reports, and on request a claim for the room that they leave."""

    items: list[Any] = Field(max_length=MAX_REPORTS)
    claim: dict[str, Any] | None = None


@api.post("/reports")
def reports() -> dict[str, Any]:
    """Take results in; what is answered `accepted` or `duplicate` is stored for good.

    An item without an answer could not be judged now: its agent reports it again.
    """
    body = ReportsBody.model_validate(lenient_document())
    session_id = agent_identity.session_id()
    # Before the commit: what is stored in a later epoch than is told is only reported once more.
    told_epoch = epoch.current()
    read = [_read(item) for item in body.items]
    good = [one for one in read if isinstance(one, Report)]
    began = history.now()
    reported = forgotten_uploads.taken_up(session_id, good, leases.report(session_id, good))
    _witness(began, good, reported.verdicts)
    announce(reported.wakeups)
    verdicts = iter(reported.verdicts)
    items = []
    for said, one in zip(body.items, read, strict=True):
        verdict = next(verdicts) if isinstance(one, Report) else one
        if verdict.verdict == "later":
            continue
        lease = said.get("lease") if isinstance(said, dict) else None
        items.append(_document(lease, verdict))
    return {"items": items, "epoch": told_epoch, "claim": _claim(body.claim)}


def _witness(began: float, reports: list[Report], verdicts: list[ReportVerdict]) -> None:
    judged = [
        [str(one.lease), verdict.verdict, one.outcome]
        for one, verdict in zip(reports, verdicts, strict=True)
    ]
    agent_identity.note("judged", began, items=judged)


def _document(lease: Any, verdict: ReportVerdict) -> dict[str, Any]:
    document = {"lease": lease, "verdict": verdict.verdict}
    return document | ({"message": verdict.message} if verdict.message else {})


def _claim(said: dict[str, Any] | None) -> dict[str, Any] | None:
    """The claim's answer, or None: whatever is wrong with it, the verdicts must arrive."""
    if said is None:
        return None
    try:
        return claim_answer(ClaimBody.model_validate(said), wait_s=0)
    except (AiravataError, ValidationError):
        return None


def _read(said: Any) -> Report | ReportVerdict:
    try:
        item = ReportItem.model_validate(said)
        _check_result(item.result)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "item"
        return _invalid(f"{where}: {first['msg']}")
    except ValueError as error:
        return _invalid(f"result: {error}")
    lease = lease_named(item.lease)
    if lease is None:
        return ReportVerdict(verdict="gone", message="That is not the name of a lease.")
    try:
        logs = tuple(
            _inline(stream, log) for stream, log in item.logs.items() if log.data is not None
        )
    except ValueError as error:
        return _invalid(f"logs: {error}")
    failure, usage = item.failure, item.usage or Usage(cpu_s=None, max_rss_kb=None)
    return Report(
        lease=lease,
        outcome=item.outcome,
        failure_kind=failure.kind if failure else None,
        failure_code=failure.code if failure else None,
        message=_message(failure),
        exit_code=item.exit_code,
        signal=item.signal,
        duration_ms=_ms(item.duration_s),
        age_ms=_ms(item.age_s),
        cpu_ms=_ms(usage.cpu_s),
        max_rss_kb=min(max(0, usage.max_rss_kb or 0), LONGEST_MS),
        result=item.result,
        artifacts=tuple(
            ReportedArtifact(output=a.output, path=a.path, size=a.size, sha256=a.sha256)
            for a in item.artifacts
        ),
        logs=logs,
    )


def _invalid(message: str) -> ReportVerdict:
    return ReportVerdict(verdict="invalid", message=message[:500])


def _check_result(result: dict[str, Any] | None) -> None:
    """Raise ValueError for a result that cannot be stored as JSON (NaN, or nested too deep)."""
    if result is None:
        return
    try:
        text = json.dumps(result, allow_nan=False)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if len(text) > MAX_RESULT_CHARS:
        raise ValueError(f"result_too_large: {len(text)} characters; send it as an artifact")


def _message(failure: Failure | None) -> str | None:
    """The message, and behind it the end of the traceback: the last lines say what happened."""
    if failure is None:
        return None
    message = failure.message[:MAX_MESSAGE_CHARS]
    room = MAX_MESSAGE_CHARS - len(message) - 1
    if failure.traceback and room > 0:
        return f"{message}\n{failure.traceback[-room:]}"
    return message


def _ms(seconds: float | None) -> int:
    return int(min(max(0.0, seconds or 0.0) * 1000, LONGEST_MS))


def _inline(stream: str, log: StreamLog) -> InlineLog:
    try:
        data = base64.b64decode(log.data or "", validate=True)
    except binascii.Error as error:
        raise ValueError(f"{stream} is not base64: {error}") from error
    if len(data) > MAX_INLINE_LOG_BYTES:
        raise ValueError(f"{stream} has {len(data)} bytes; send more than 8 KiB as a stream")
    return InlineLog(
        stream=stream, size=max(log.size, len(data)), data=data, truncated=log.truncated
    )
