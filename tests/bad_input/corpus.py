"""Every request of the corpus; the modules of `families/` are grouped as the catalogue is."""

from __future__ import annotations

from typing import Final

from tests.bad_input.case import Case
from tests.bad_input.families import (
    commands,
    encodings,
    identity,
    numbers,
    outbound,
    paths,
    requests,
)

CASES: Final[tuple[Case, ...]] = (
    *paths.CASES,
    *commands.CASES,
    *numbers.CASES,
    *encodings.CASES,
    *requests.CASES,
    *identity.CASES,
    *outbound.CASES,
)
