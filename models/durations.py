"""Durations and wall times as users write them, without guessing.

A duration is Go's form: `30s`, `1h30m`, `168h`. A wall time is that, or a scheduler's clock form
with all its parts: `0:10:00` (hours:minutes:seconds) or `1-00:00:00` (days-hours:minutes:seconds).
`60` and `10:00` are refused: SLURM reads minutes, other systems seconds or hours.
"""

from __future__ import annotations

import math
import re

from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.faults import shown
from airavata_scheduler.models.setting_values import parse_duration as parse_go_duration

MAX_DURATION_S = 366 * 86_400
MAX_TEXT_CHARS = 40

_CLOCK = re.compile(r"(?:([0-9]{1,3})-)?([0-9]{1,4}):([0-9]{2}):([0-9]{2})")
_BARE_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_SHORT_CLOCK = re.compile(r"[0-9]+:[0-9]+")
_SHORT_DAYS = re.compile(r"[0-9]+-[0-9:]+")


def parse_duration(value: object) -> float:
    """Seconds of `30s`, `1h30m` or `168h`.

    Raises BadInput (code `bad_duration`) with a sentence where `value` is something else, not
    longer than zero, or longer than a year.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = shown(value)[1:-1]
        raise _bad(
            f'{number} has no unit; write "{number}s" for seconds or "{number}m" for minutes'
        )
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT_CHARS:
        raise _bad(f"must be a duration such as 30s or 1h30m, not {shown(value)}")
    if _BARE_NUMBER.fullmatch(value):
        raise _bad(f'{value} has no unit; write "{value}s" for seconds or "{value}m" for minutes')
    try:
        seconds = parse_go_duration(value)
    except ValueError:
        raise _bad(f"must be a duration such as 30s, 10m or 1h30m, not {shown(value)}") from None
    return _bounded(seconds, value)


def parse_walltime(value: object) -> int:
    """Whole seconds (rounded up) of `0:10:00`, `1-00:00:00`, or of a duration such as `10m`.

    Raises BadInput (code `bad_duration`) as `parse_duration` does, and for the forms that different
    schedulers read differently.
    """
    if not isinstance(value, str) or len(value) > MAX_TEXT_CHARS:
        return math.ceil(parse_duration(value))
    clock = _CLOCK.fullmatch(value)
    if clock:
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        if minutes > 59 or seconds > 59 or (clock[1] and hours > 23):
            raise _bad(f"{value} has more than 59 minutes or seconds, or 23 hours beside days")
        return math.ceil(_bounded(((days * 24 + hours) * 60 + minutes) * 60 + seconds, value))
    if _SHORT_CLOCK.fullmatch(value):
        raise _bad(f"{value} may mean minutes or hours; write hours:minutes:seconds, as in 0:10:00")
    if _SHORT_DAYS.fullmatch(value):
        raise _bad(f"{value} is not complete; write days-hours:minutes:seconds, as in 1-00:00:00")
    return math.ceil(parse_duration(value))


def _bounded(seconds: float, text: str) -> float:
    if not seconds > 0:
        raise _bad(f"{text} must be longer than zero")
    if seconds > MAX_DURATION_S:
        raise _bad(f"{text} is longer than {MAX_DURATION_S // 86_400} days")
    return seconds


def _bad(detail: str) -> BadInput:
    return BadInput(detail, code="bad_duration")
