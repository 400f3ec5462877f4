"""Rotating the agent's secret in two phases; every step survives a crash.

1. A new secret is made and stored beside the old one. 2. The server is told its hash. 3. The new
one is used for the next access token: with that first use it becomes current on the server. 4. Only
then the old one is forgotten here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
import threading
import time
from typing import TYPE_CHECKING

from airavata_scheduler.agent.faults import AgentFault
from airavata_scheduler.agent.state_folder import Identity

if TYPE_CHECKING:
    from airavata_scheduler.agent.runtime import Runtime

AGE_S = 0.67 * 30 * 86400.0
_RETRY_S = 3600.0


class Rotation:
    """At 67 % of 30 days, or when the server or `rotate` asks."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._busy = threading.Lock()
        self._tried_at = 0.0

    def secrets(self) -> list[str]:
        """The secrets to try for an access token: the one of an unfinished rotation first."""
        identity = self._runtime.identity
        return [secret for secret in (identity.next_secret, identity.secret) if secret]

    def is_due(self) -> bool:
        """Whether the secret is old enough, or a rotation was interrupted."""
        identity = self._runtime.identity
        if time.time() - self._tried_at < _RETRY_S:
            return False
        old = identity.rotated_at and time.time() - identity.rotated_at > AGE_S
        return bool(old or identity.next_secret)

    def start(self) -> None:
        """Rotate in the background."""
        if not self._busy.locked():
            threading.Thread(target=self._quietly, name="rotate", daemon=True).start()

    def rotate(self) -> None:
        """All steps. Raises AgentFault; whatever happened, one of the stored secrets works."""
        with self._busy:
            self._tried_at = time.time()
            runtime = self._runtime
            fresh = runtime.identity.next_secret or secrets.token_hex(32)
            runtime.log.hide(fresh)
            self._keep(dataclasses.replace(runtime.identity, next_secret=fresh))
            digest = hashlib.sha256(fresh.encode()).hexdigest()
            runtime.api.post("/rotate", {"new_secret_hash": digest}, tries=5)
            runtime.crash_point("rotate.told")
            runtime.api.token_answer()
            self._keep(
                dataclasses.replace(
                    runtime.identity, secret=fresh, next_secret=None, rotated_at=time.time()
                )
            )
            runtime.log.info("the agent's secret was rotated")

    def _quietly(self) -> None:
        try:
            self.rotate()
        except AgentFault as problem:
            self._runtime.log.warning(f"the secret could not be rotated: {problem}")

    def _keep(self, identity: Identity) -> None:
        self._runtime.folder.keep_identity(identity)
        self._runtime.identity = identity
