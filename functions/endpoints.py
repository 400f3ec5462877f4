"""The address of a compute resource: where the scheduler would reach it, by SSH or HTTPS."""

from __future__ import annotations

from typing import Final

from airavata_scheduler.backends import targets
from airavata_scheduler.models.errors import BadInput

SCHEMES: Final = ("ssh", "https")


def check_endpoint(text: str) -> None:
    """Return for `ssh://host[:port]`, `https://host[:port][/path]` or nothing. Raises BadInput.

    What is taken here is what a connection will take, but for a user: that is a credential's to
    say. Whether the host may be reached is asked when somebody connects to it.
    """
    if text == "":
        return
    try:
        found = targets.parse(text, SCHEMES)
    except BadInput as error:
        raise _invalid(error.detail) from None
    if found.user is not None:
        raise _invalid("The endpoint must not name a user; that belongs to the credential.")


def _invalid(detail: str) -> BadInput:
    return BadInput(
        detail,
        code="invalid_endpoint",
        field="endpoint",
        hint="Write ssh://HOST:PORT or https://HOST:PORT/PATH.",
    )
