"""What the API's answers look like, so that nothing else is taken for one.

A proxy, a login page of a network or a broken server may answer 200 with something else. Whoever
believed it would act on a verdict that nobody gave, or lose a result that nobody has: such an
answer counts as none, and the call is made again.
"""

from __future__ import annotations

import re
from typing import Any

Json = dict[str, Any]
_Shape = dict[str, tuple[type, ...]]

# The members that the agent relies on, by the call's path; others are read with defaults.
_SHAPES: dict[str, _Shape] = {
    "/enroll": {"agent_id": (str,)},
    "/token": {"access_token": (str,)},
    "/session": {"session_id": (str,), "epoch": (str,), "timers": (dict,), "leases": (list,)},
    "/heartbeat": {"epoch": (str,), "leases": (list,), "agent": (dict,)},
    "/leases/claim": {"epoch": (str,), "leases": (list,), "specs": (dict,)},
    "/leases/start": {"items": (list,)},
    "/leases/release": {"items": (list,)},
    "/reports": {"items": (list,), "epoch": (str,), "claim": (dict, type(None))},
}
_OF_FILES: dict[str, _Shape] = {
    "artifacts": {"sha256": (str,)},
    "log": {"offset": (int,)},
}
_FILE = re.compile(r"/leases/[^/]+/(artifacts|log)\b")


def is_answer(path: str, answer: Json) -> bool:
    """Whether `answer` can be what the API says to a call of `path` (below /agent/v1)."""
    found = _FILE.match(path)
    shape = _OF_FILES[found.group(1)] if found else _SHAPES.get(path.partition("?")[0], {})
    if not all(isinstance(answer.get(name), kinds) for name, kinds in shape.items()):
        return False
    listed = [entry for name in ("leases", "items") if name in shape for entry in answer[name]]
    return all(isinstance(entry, dict) and isinstance(entry.get("lease"), str) for entry in listed)
