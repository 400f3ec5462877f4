"""Which agents this release works with: its own, the two before it, and any that is newer.

An agent that is older keeps what it holds (its heartbeats and reports are taken), but is granted
nothing new: it finishes, is upgraded, and takes up again what was still running.
"""

from __future__ import annotations

import re
from typing import Final

RELEASE: Final = "0.1.0"  # of this program; setup.cfg says the same (a test compares)
RELEASES_BACK: Final = 2
_FORM: Final = re.compile(r"(\d{1,6})\.(\d{1,6})(\.\d{1,6})?([-+.a-z].*)?", re.ASCII)


def may_claim(version: str, release: str = RELEASE) -> bool:
    """Whether an agent of `version` is granted work by a server of `release`.

    Releases count by MAJOR.MINOR; patches are compatible. A version that cannot be read is that of
    an agent that we know nothing of: it is granted nothing.
    """
    theirs, ours = _numbers(version), _numbers(release)
    if theirs is None or ours is None:
        return False
    if theirs[0] != ours[0]:
        return theirs > ours
    return theirs[1] >= ours[1] - RELEASES_BACK


def _numbers(version: str) -> tuple[int, int] | None:
    found = _FORM.fullmatch(version)
    return None if found is None else (int(found[1]), int(found[2]))
