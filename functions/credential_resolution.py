"""From what a run needs to the secret that opens it, and why it is that one or none.

Needed resources → credentials bound to each → those that the user may use → the value in OpenBao.
Of several the user's own comes first, then the one that was changed last. A step that fails says
what to do; what the asking person may not see is counted, not named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from airavata_scheduler.backends import credential_kinds, secret_values
from airavata_scheduler.backends.openbao import SecretStoreBehind
from airavata_scheduler.backends.openbao_http import SecretsRefused, SecretsUnavailable
from airavata_scheduler.functions import permissions
from airavata_scheduler.functions.naming import Target
from airavata_scheduler.functions.principals import Principal
from airavata_scheduler.models.database import now_ms
from airavata_scheduler.models.tables import Credential, CredentialBinding

Verdict = Literal["chosen", "usable", "expired", "kind", "not_allowed", "value_missing", "unknown"]

SENTENCES: Final[dict[Verdict, str]] = {
    "chosen": "It is used.",
    "usable": "It could be used, but another one comes first.",
    "expired": "It has ended; rotate it: airavata credential rotate",
    "kind": "Its kind does not open this resource.",
    "not_allowed": "You may see it, but not use it; its owner can share it with you.",
    "value_missing": "OpenBao does not hold its value; write it again: airavata credential rotate",
    "unknown": "OpenBao cannot be asked now whether it holds the value.",
}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One credential that is bound to the resource, and what speaks for or against it."""

    credential: Credential
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """How one resource is opened for one user."""

    resource: Target
    steps: Sequence[Step]
    hidden: int  # bound as well, but the user may not even see them

    @property
    def chosen(self) -> Credential | None:
        """The credential that is used."""
        return next((step.credential for step in self.steps if step.verdict == "chosen"), None)

    @property
    def sentence(self) -> str:
        """The outcome in one line."""
        if self.chosen is not None:
            return f"{self.resource.name} is opened by {self.chosen.name}."
        if self.steps:
            return f"None of the credentials bound to {self.resource.name} can be used by you."
        if self.hidden:
            return (
                f"{self.hidden} credentials are bound to {self.resource.name}, and none is shared "
                "with you; ask their owners."
            )
        return (
            f"No credential is bound to {self.resource.name}; bind one: "
            "airavata resource bind-credential"
        )


def resolve(principal: Principal, resource: Target) -> Resolution:
    """How `resource` is opened for the principal. Raises Unavailable while SpiceDB is away."""
    bound = _bound(resource)
    named = [("credential", row.id, way) for row in bound for way in ("read", "use")]
    answers = iter(permissions.decide_ids(principal, named))
    decided = [(row, next(answers), next(answers)) for row in bound]
    seen = [(row, may_use) for row, may_read, may_use in decided if may_read]
    seen.sort(key=lambda item: (item[0].owner_id != principal.id, -item[0].updated_at, item[0].id))
    steps: list[Step] = []
    for row, may_use in seen:
        verdict = _verdict_of_row(row, resource, may_use=may_use)
        if verdict == "usable":
            # An OpenBao that is away is asked once: each time costs seconds.
            is_away = any(step.verdict == "unknown" for step in steps)
            verdict = "unknown" if is_away else _verdict_of_value(row)
        if verdict == "usable" and not any(step.verdict == "chosen" for step in steps):
            verdict = "chosen"
        steps.append(Step(credential=row, verdict=verdict))
    return Resolution(resource=resource, steps=steps, hidden=len(bound) - len(seen))


def _bound(resource: Target) -> list[Credential]:
    return list(
        Credential.select()
        .join(CredentialBinding, on=(CredentialBinding.credential_id == Credential.id))
        .where(
            (CredentialBinding.resource_kind == resource.kind)
            & (CredentialBinding.resource_id == resource.id)
            & (Credential.state == "active")
        )
    )


def _verdict_of_row(row: Credential, resource: Target, *, may_use: bool) -> Verdict:
    """What can be said without OpenBao; `usable` if it has the value."""
    if not may_use:
        return "not_allowed"
    if not credential_kinds.fits(row.kind, str(resource.row["kind"])):
        return "kind"
    if row.expires_at is not None and row.expires_at <= now_ms():
        return "expired"
    return "usable"


def _verdict_of_value(row: Credential) -> Verdict:
    try:
        return "usable" if secret_values.is_there(row) else "value_missing"
    except SecretStoreBehind:
        return "value_missing"
    except (SecretsUnavailable, SecretsRefused):
        return "unknown"
