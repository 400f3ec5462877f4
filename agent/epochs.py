"""The server's epoch: a new one may have forgotten results that it acknowledged to us.

They are told again from the journal. The journal also has the epoch in which that came to its end
(`settled`): an agent that dies on the way begins again, and the server gives older tasks to nobody
before it has heard that we are done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airavata_scheduler.agent.runtime import Runtime


def enter(runtime: Runtime, epoch: str) -> None:
    """Know the server's epoch from now on."""
    if epoch == runtime.epoch:
        return
    # Journals of before had no `settled`: there the last acknowledgement's epoch has to do.
    known = runtime.journal.state.settled or runtime.journal.state.epoch
    is_start, runtime.epoch = not runtime.epoch, epoch
    if is_start and known in ("", epoch):
        settle(runtime, epoch)
        return
    runtime.log.warning("the server's epoch changed: results are reported again")
    runtime.reports.all_again(epoch)


def settle(runtime: Runtime, epoch: str) -> None:
    """Nothing that was acknowledged before is left to be told in this epoch."""
    runtime.journal.append({"t": "settled", "epoch": epoch})
    runtime.beat.soon()  # the server waits for it
