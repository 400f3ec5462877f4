"""Durations and wall times: read as written, and never guessed at."""

from __future__ import annotations

import pytest

from airavata_scheduler.models.durations import parse_duration, parse_walltime
from airavata_scheduler.models.errors import BadInput


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("168h", 604_800),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("250ms", 0.25),
        ("1m1s", 61),
    ],
)
def test_durations_with_units(text: str, seconds: float) -> None:
    """Go's form, with as many parts as are written."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("0:10:00", 600), ("00:00:30", 30), ("100:00:00", 360_000), ("1-00:00:00", 86_400)),
        *(("2-03:04:05", 183_845), ("10m", 600), ("90s", 90), ("1.5s", 2)),
    ],
)
def test_wall_times(text: str, seconds: int) -> None:
    """A batch system's clock with all its parts, or a duration; whole seconds, rounded up."""
    assert parse_walltime(text) == seconds


@pytest.mark.parametrize(
    "value",
    [
        *("60", 60, 1.5, "10:00", "1-00", "1-00:00", "0:60:00", "0:00:61", "1-24:00:00"),
        *(
            "",
            " 30s",
            "30 s",
            "30S",
            "-30s",
            "0s",
            "0:00:00",
            "1w",
            "1d",
            "\u0663\u0660s",
            "1h-1m",
            "9" * 400,
        ),
        *("9" * 30 + "h", "999999h", None, True, [], {}, "5400:00:00:00", "1e3s", "infs", "nan"),
    ],
)
def test_what_could_mean_two_things_is_refused(value: object) -> None:
    """`60` is minutes to SLURM and seconds to others; such texts get a sentence, not a guess."""
    with pytest.raises(BadInput) as refusal:
        parse_walltime(value)

    assert refusal.value.code == "bad_duration"


def test_a_bare_number_is_told_what_to_write() -> None:
    """The sentence names the two forms that the user may have meant."""
    with pytest.raises(BadInput, match='write "600s" for seconds or "600m" for minutes'):
        parse_duration(600)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("10:00", "may mean minutes or hours"),
        ("1-00:00", "is not complete"),
        ("60", "has no unit"),
        ("0:75:00", "more than 59 minutes"),
    ],
)
def test_an_ambiguous_wall_time_is_told_why(text: str, says: str) -> None:
    """The sentence says what is ambiguous, not only that something is wrong."""
    with pytest.raises(BadInput, match=says):
        parse_walltime(text)
