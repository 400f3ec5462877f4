"""What all loops share: a thread, a turn that is taken again and again, one edge for faults."""

from __future__ import annotations

import threading
import traceback
from typing import TYPE_CHECKING

from airavata_scheduler.agent.faults import AgentFault, Refused, SessionLost, Stopping, Unreachable

if TYPE_CHECKING:
    from airavata_scheduler.agent.runtime import Runtime


class Loop:
    """Takes turns until the agent stops. A fault of one turn does not end the loop."""

    def __init__(self, runtime: Runtime, name: str) -> None:
        self.runtime = runtime
        self.name = name
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to take turns, in a thread of its own."""
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for its end."""
        self._thread.join(timeout_s)

    def turn(self) -> None:
        """One round of work; waits for something to do by itself."""
        raise NotImplementedError

    def wake(self) -> None:
        """Make a waiting turn return (called when the agent stops)."""

    def _run(self) -> None:
        """Turns until the end."""
        runtime = self.runtime
        while not runtime.stop.is_set():
            try:
                self.turn()
            except Stopping:
                continue
            except SessionLost as lost:
                runtime.renew_session(lost.session_id)
            except (Refused, Unreachable) as fault:
                runtime.log.warning(f"{self.name}: {fault}")
                runtime.stop.wait(1.0)
            except AgentFault as fault:
                runtime.end(fault)
            except Exception as error:  # noqa: BLE001  the loop's edge: the agent must go on
                if runtime.stop.is_set():
                    return
                runtime.log.error(f"{self.name}: {type(error).__name__}: {error}")
                runtime.log.debug(traceback.format_exc())
                runtime.stop.wait(1.0)
