"""Becoming an agent: with a one-time token, or by asking for approval."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time
from typing import Any

from airavata_scheduler.agent.api import Api
from airavata_scheduler.agent.faults import BadSetting, NotAllowed, Refused, Stopping
from airavata_scheduler.agent.machine import describe_host
from airavata_scheduler.agent.oplog import OpLog
from airavata_scheduler.agent.settings import Settings
from airavata_scheduler.agent.state_folder import Identity, StateFolder
from airavata_scheduler.agent.transport import Transport
from airavata_scheduler.agent.version import VERSION

Json = dict[str, Any]
_APPROVAL_POLL_S = 3.0
_REFUSALS = (400, 401, 403, 404, 409, 410, 422)


def make_api(settings: Settings, log: OpLog, stop: threading.Event) -> Api:
    """A client for the settings' API. Raises BadSetting when there is no address."""
    if not settings.api_url:
        raise BadSetting(
            "API_URL is not set; write for example API_URL=https://scheduler.example.org."
        )
    return Api(
        Transport(settings.api_url, ca_bundle=settings.ca_bundle, version=VERSION), log, stop
    )


def enroll(
    settings: Settings, folder: StateFolder, log: OpLog, *, token: str | None, tries: int = 0
) -> Identity:
    """Enrol with `token`, or register as pending without one; stores and returns the identity.

    The secret is on the disk before it is used, so an answer that was lost costs nothing: the same
    call again gives the same agent. Raises NotAllowed for a token that is used up, Unreachable.
    """
    api = make_api(settings, log, threading.Event())
    secret = folder.pending_secret()
    log.hide(secret)
    if token:
        log.hide(token)
    body = {
        "token": token,
        "name": settings.name,
        "compute": settings.compute,
        "secret_hash": hashlib.sha256(secret.encode()).hexdigest(),
        "host": describe_host(),
        "version": VERSION,
    }
    try:
        answer = api.plain("POST", "/enroll", body, tries=tries)
    except Refused as problem:
        if problem.status in _REFUSALS:
            raise NotAllowed(f"The agent was not enrolled: {problem}") from problem
        raise
    finally:
        api.close()
    identity = _identity(settings, secret, answer)
    folder.keep_identity(identity)
    folder.end_enrolment()
    return identity


def wait_for_approval(
    settings: Settings, folder: StateFolder, log: OpLog, identity: Identity, stop: threading.Event
) -> Identity:
    """Ask until somebody approved the agent; the identity as it is then. Raises Stopping."""
    api = make_api(settings, log, stop)
    api.use_identity(identity.agent_id, lambda: [identity.secret])
    log.info(
        f"waiting for approval: airavata agent approve {identity.name} "
        f"--code {identity.approval_code}"
    )
    while True:
        try:
            answer = api.token_answer()
        except Refused as problem:
            if problem.code != "agent_pending":
                raise
        else:
            if answer.get("state", "active") != "pending":
                approved = dataclasses.replace(identity, state="active", approval_code=None)
                folder.keep_identity(approved)
                api.close()
                log.info("approved")
                return approved
        if stop.wait(_APPROVAL_POLL_S):
            raise Stopping("stopped while waiting for approval")


def _identity(settings: Settings, secret: str, answer: Json) -> Identity:
    compute = answer.get("compute") or {}
    return Identity(
        agent_id=str(answer["agent_id"]),
        name=str(answer.get("name") or settings.name),
        compute=str(compute.get("name") or settings.compute or ""),
        api_url=settings.api_url,
        secret=secret,
        state=str(answer.get("state") or "active"),
        approval_code=answer.get("approval_code"),
        rotated_at=time.time(),
    )
