"""Whether OpenBao holds what the database names, by the values that were written last.

Each use of a secret finds that out for its own value. An OpenBao that was restored to an older
state lacks the newest writes, so a look at a few tells the operator before a user meets it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from airavata_scheduler.backends import openbao
from airavata_scheduler.models.database import execute

NEWEST: Final = 20  # each is one request; a restored store lacks the newest ones first
NAMED: Final = 5

_WRITTEN_LAST: Final = """
SELECT c.id, c.name, v.number, v.write_id FROM credential_versions v
JOIN credentials c ON c.id = v.credential_id
WHERE v.state = 'current' AND c.state = 'active' ORDER BY v.created_at DESC LIMIT %s
"""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """How many values were looked for, and of which credentials one is not there."""

    looked_for: int
    lost: list[str]

    @property
    def fault(self) -> str | None:
        """One sentence where something is lost."""
        if not self.lost:
            return None
        named = ", ".join(self.lost[:NAMED]) + (", …" if len(self.lost) > NAMED else "")
        return (
            "OpenBao was restored to an older state than the database: it does not hold "
            f"{len(self.lost)} of the {self.looked_for} values that were written last, of {named}."
        )


HINT: Final = (
    "Restore a newer snapshot of OpenBao; or write them again: airavata credential rotate. "
    "Until then each use is refused."
)


def look(newest: int = NEWEST) -> Seen:
    """Look for the values that were written last. Raises SecretsUnavailable, SecretsRefused."""
    rows = list(execute(_WRITTEN_LAST, (newest,)))
    lost = [row for row in rows if not _is_there(row)]
    if lost:
        path, _, number, write_id = lost[0]
        openbao.secrets().appears(str(path), version=int(number), write_id=str(write_id))
        # A standby had its moment.
        lost = [row for row in lost if not _is_there(row)]
    return Seen(looked_for=len(rows), lost=[str(name) for _, name, _, _ in lost])


def _is_there(row: Sequence[Any]) -> bool:
    path, _, number, write_id = row
    return openbao.secrets().holds(str(path), version=int(number), write_id=str(write_id))
