"""docs/secrets.md: the policies are the files, and every refusal is explained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airavata_scheduler.backends import openbao, openbao_http, openbao_setup
from airavata_scheduler.models.errors import AiravataError

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "secrets.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"^```hcl\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_the_policies_are_the_files() -> None:
    """What is shown is what set-up writes, to the letter."""
    names = (openbao_setup.POLICY, openbao_setup.OPERATOR_POLICY)
    files = [(ROOT / "backends" / f"{name}.hcl").read_text(encoding="utf-8") for name in names]

    assert _BLOCK.findall(PAGE) == files


@pytest.mark.parametrize(
    "error",
    [
        openbao.SecretStoreBehind(),
        openbao.raced(),
        openbao_http.away(),
        openbao_http.failing(),
        openbao_http.policy_lacks(),
        openbao_http.request_refused(),
        openbao_http.role_refused(),
        openbao_http.sealed(),
        openbao_http.not_initialised(),
        openbao_http.token_refused(),
        openbao_http.unverified(),
    ],
    ids=lambda error: str(error.detail),
)
def test_every_refusal_is_explained(error: AiravataError) -> None:
    """By its code, with the very sentence, and with what to do."""
    assert f"| `{error.code}` | {error.detail} | " in PAGE
    assert error.hint
