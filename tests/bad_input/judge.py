"""How an answer to a bad input is judged."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tests.api import Answered
from tests.bad_input.case import Case

MOST_ANSWER_BYTES = 16_384  # an answer never gives back what was sent by the megabyte
_CODES = Path(__file__).parents[2] / "docs" / "api.md"
# Where a value is wrong, the place of it is said, or at least what to do.
_NEED_A_PLACE = frozenset({400, 413, 415, 422})
# Control characters, half pairs, and what turns the direction of a text.
_UNSEEN = frozenset({"Cc", "Cs", "Cf", "Zl", "Zp"})


def faults(case: Case, answer: Answered) -> list[str]:
    """What is wrong with the answer to a case; nothing, as it should be."""
    status = answer.status_code
    if status >= 500:
        return [f"answered {status}: {answer.text[:300]}"]
    if case.code is None:
        return [] if status == case.status else [f"answered {status}: {answer.text[:300]}"]
    if status != case.status:
        return [f"answered {status}, not {case.status}: {answer.text[:300]}"]
    if answer.mimetype != "application/problem+json":
        return [f"is {answer.mimetype}: {answer.text[:200]}"]
    found = refusal_faults(answer.json, code=case.code, field=case.field)
    if len(answer.data) > MOST_ANSWER_BYTES:
        found.append(f"has {len(answer.data)} bytes")
    if status in _NEED_A_PLACE and not (answer.json.get("field") or answer.json.get("hint")):
        found.append(f"names neither a field nor what to do: {answer.json['detail']}")
    return found


def refusal_faults(said: Mapping[str, Any], *, code: str, field: str | None) -> list[str]:
    """What is wrong with a problem document."""
    found = []
    if said.get("code") != code:
        found.append(f"has the code {said.get('code')}, not {code}: {said.get('detail')}")
    elif not is_documented(code):
        found.append(f"has the code {code}, which docs/api.md does not know")
    if field is not None and said.get("field") != field:
        found.append(f"names the field {said.get('field')!r}, not {field!r}: {said.get('detail')}")
    texts = [str(said.get(name) or "") for name in ("detail", "hint", "field")]
    texts += [str(item.get("detail")) for item in said.get("errors") or ()]
    found += [f"says something that cannot be seen: {text!r}" for text in texts if unseen(text)]
    if not texts[0].strip():
        found.append("says no cause")
    return found


def unseen(text: str) -> bool:
    """Whether a text has characters that would drive a terminal or hide what it says."""
    return any(unicodedata.category(sign) in _UNSEEN for sign in text)


def is_documented(code: str) -> bool:
    """Whether the page of the API has the code; rules of values have one row for all."""
    return code.startswith("invalid_") or code in _documented()


@cache
def _documented() -> frozenset[str]:
    return frozenset(re.findall(r"`([a-z][a-z0-9_]*)`", _CODES.read_text(encoding="utf-8")))
