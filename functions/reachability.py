"""Says in the database that agents can reach this process, so that our outage ends no lease (I7).

The sweeper lives in another process: without this word it would take the silence of all agents for
their end while it was the API that was away.
"""

from __future__ import annotations

import logging
import threading

import peewee

from airavata_scheduler.functions import streams
from airavata_scheduler.models import epoch
from airavata_scheduler.models.database import connected
from airavata_scheduler.models.errors import AiravataError

EVERY_S = 5.0

_log = logging.getLogger(__name__)


def say_so() -> None:
    """Begin, in a thread of this process; it ends when the process takes no more requests."""
    threading.Thread(target=_say_on, name="reachability", daemon=True).start()


def _say_on() -> None:
    pause = threading.Event()
    while not streams.is_ending():
        try:
            with connected():
                epoch.reachable()
        except (AiravataError, peewee.PeeweeException) as error:
            _log.warning("reachability: not noted, tried again soon: %s", error)
        pause.wait(EVERY_S)
