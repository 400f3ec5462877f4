"""The one entry point, for `python -m airavata_scheduler.agent` and for the single file."""

from __future__ import annotations

import sys

from airavata_scheduler.agent.verbs import run

if __name__ == "__main__":
    sys.exit(run())
