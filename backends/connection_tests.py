"""Testing a credential by a real connection, within ten seconds, and saying what happened.

`test` never raises for what the other end does: that is the result. It raises BadInput where the
target is malformed, does not fit the kind, or is an address that may not be reached.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from airavata_scheduler.backends import credential_kinds, https_asking, s3_asking, ssh_session
from airavata_scheduler.backends.https_asking import Answer
from airavata_scheduler.backends.outbound import (
    TEST_S,
    Outbound,
    Resolver,
    Unreachable,
    system_addresses,
)
from airavata_scheduler.backends.ssh_kinds import Signer
from airavata_scheduler.backends.ssh_session import HostKey
from airavata_scheduler.backends.targets import parse


@dataclass(frozen=True, kw_only=True)
class Tested:
    """The result: `detail` is a sentence without any secret.

    `fingerprint` is that of the server's SSH key or certificate, `host_key` the SSH key's line for
    recording; both only where the server showed one.
    """

    ok: bool
    detail: str
    took_ms: int
    fingerprint: str | None = None
    host_key: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Question:
    kind: str
    secret: Mapping[str, str] = field(repr=False)
    target: str
    host_key: str | None
    sign: Signer | None


@dataclass(frozen=True, kw_only=True)
class _Result:
    answer: Answer
    host_key: str | None = None


def test(
    kind: str,
    secret: Mapping[str, str],
    target: str,
    *,
    allow: Sequence[str] = (),
    host_key: str | None = None,
    sign: Signer | None = None,
    seconds: float = TEST_S,
    resolve: Resolver = system_addresses,
) -> Tested:
    """Connect to `target` with the credential's value `secret`.

    `target` is `ssh://user@host:22`, `https://host:443/path` or `s3://host:443/bucket`, as the kind
    has it; "" for a kubeconfig's own server. `allow` is the setting OUTBOUND_ALLOW, `host_key` the
    recorded key of an SSH server (line or SHA256:…), `sign` the authority of an SSH_CERTIFICATE.
    Raises BadInput, and what `sign` raises.
    """
    began = time.monotonic()
    value = credential_kinds.read(kind, secret).secret
    question = _Question(kind=kind, secret=value, target=target, host_key=host_key, sign=sign)
    with Outbound(allow, seconds=seconds, resolve=resolve) as outbound:
        try:
            result = _asked(outbound, question)
        except Unreachable as error:
            detail = f"{error}; check the address, and whether a firewall stands in between"
            result = _Result(answer=Answer(ok=False, detail=detail))
        late = outbound.is_over and not result.answer.ok
    took_ms = int((time.monotonic() - began) * 1000)
    detail = f"nothing came of it within {seconds:g} s" if late else result.answer.detail
    return Tested(
        ok=result.answer.ok,
        detail=f"{detail[0].upper()}{detail[1:]}.",
        took_ms=took_ms,
        fingerprint=result.answer.fingerprint,
        host_key=result.host_key,
    )


def _asked(outbound: Outbound, asked: _Question) -> _Result:
    schemes = credential_kinds.kind_named(asked.kind).schemes
    if schemes == ("ssh",):
        return _by_ssh(outbound, asked)
    if schemes == ("s3",):
        return _Result(answer=s3_asking.ask(outbound, asked.secret, asked.target))
    who, server = https_asking.caller(asked.kind, asked.secret, asked.target)
    return _Result(answer=https_asking.ask(outbound, who, server))


def _by_ssh(outbound: Outbound, asked: _Question) -> _Result:
    target = parse(asked.target, ("ssh",))
    who = ssh_session.login(asked.kind, asked.secret, target, asked.sign)
    key: HostKey | None
    try:
        with ssh_session.session(outbound, target, who, asked.host_key) as (_, found):
            known = "recorded" if asked.host_key else "not recorded yet"
            detail = (
                f"{target.authority} let {who.user} in by {who.how}; "
                f"its key {found.fingerprint} is {known}"
            )
            ok, key = True, found
    except ssh_session.NotLoggedIn as error:
        ok, key, detail = False, error.host_key, str(error)
    return _Result(
        answer=Answer(ok=ok, detail=detail, fingerprint=key.fingerprint if key else None),
        host_key=key.line if key else None,
    )
