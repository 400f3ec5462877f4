"""The SDK's export: whole, or an error."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from airavata_scheduler.client.api_audit import Audit
from airavata_scheduler.client.errors import IntegrityError
from tests.unit.test_client_transport import Twin

ENTRY = '{"hash": "a", "seq": 1}\n'
HEAD = '{"head": {"hash": "a", "seq": 1}}\n'


def test_an_export_is_written_as_it_came(tmp_path: Path) -> None:
    """Line by line; the head is no entry."""
    twin = Twin([httpx.Response(200, text=ENTRY + HEAD)])

    assert Audit(twin.transport()).export(tmp_path / "file") == 1
    assert (tmp_path / "file").read_text(encoding="ascii") == ENTRY + HEAD


@pytest.mark.parametrize("text", ["", ENTRY])
def test_an_export_that_was_cut_off_is_an_error(tmp_path: Path, text: str) -> None:
    """The server died amid it: nobody should keep that for the whole."""
    twin = Twin([httpx.Response(200, text=text)])

    with pytest.raises(IntegrityError, match="cut off"):
        Audit(twin.transport()).export(tmp_path / "file")
