"""`airavata-scheduler secrets`: from an empty OpenBao to a login, and what it says meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from airavata_scheduler.backends.openbao_setup import OPERATOR_POLICY
from tests.secret_store import Store
from tests.servers.openbao import OpenBao
from tests.servers.programs import running, server_folder

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Operator:
    """Somebody who types commands for an OpenBao that is empty at first."""

    bao: OpenBao
    folder: Path

    def types(self, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run `airavata-scheduler secrets …`."""
        where = {"OPENBAO_ADDR": self.bao.address, "OPENBAO_CA_FILE": str(self.bao.ca_file)}
        return subprocess.run(
            [sys.executable, "-m", "airavata_scheduler.commands.main", "secrets", *words],
            env=os.environ | where | settings,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    """An OpenBao of the test's own."""
    with server_folder("openbao") as folder, running(OpenBao(folder)) as bao:
        yield Operator(bao=bao, folder=tmp_path)


def test_from_an_empty_openbao_to_a_login(operator: Operator) -> None:
    """Set up twice without harm; the operator's policy is enough for the wrapped secret id."""
    root = {"OPENBAO_TOKEN": operator.bao.root_token}
    before = operator.types("check", **root)
    first, second = operator.types("set-up", **root), operator.types("set-up", **root)
    named, _, role_id = first.stdout.strip().partition("=")
    store = Store(bao=operator.bao, folder=operator.folder, role_id=role_id)
    file = operator.folder / "secret-id"
    own = {"OPENBAO_ROLE_ID": role_id, "OPENBAO_SECRET_ID_FILE": str(file)}
    wrapped = operator.types(
        "wrap", "--output", str(file), OPENBAO_TOKEN=store.token(OPERATOR_POLICY)
    )
    mode, content = file.stat().st_mode & 0o777, file.read_text()
    after = operator.types("check", **own)

    assert before.returncode == 1
    assert "FAIL  OpenBao has no credentials/ (OPENBAO_CREDENTIALS_PATH)." in before.stdout
    assert named == "OPENBAO_ROLE_ID"
    assert first.stdout == second.stdout
    assert "secrets wrap" in first.stderr
    assert (wrapped.returncode, mode) == (0, 0o600)
    assert content.startswith("s.")
    assert content not in wrapped.stdout + wrapped.stderr
    assert after.returncode == 0, after.stdout
    assert "engines, key and policy are as they must be" in after.stdout
    assert file.read_text() != content


def test_the_token_must_be_good_for_it(operator: Operator) -> None:
    """No token, one that is refused, one whose policy is too small: sentences, no traceback."""
    root = {"OPENBAO_TOKEN": operator.bao.root_token}
    assert operator.types("set-up", **root).returncode == 0
    store = Store(bao=operator.bao, folder=operator.folder)
    small, wrong = {"OPENBAO_TOKEN": store.token()}, {"OPENBAO_TOKEN": "s.nonsense"}

    for done, words in (
        (operator.types("set-up"), "OPENBAO_TOKEN is not set"),
        (operator.types("set-up", **small), "refuses OPENBAO_TOKEN, or its policy"),
        (operator.types("wrap", **small), "refuses OPENBAO_TOKEN, or its policy"),
        (operator.types("wrap", **wrong), "refuses OPENBAO_TOKEN, or its policy"),
        (operator.types("wrap", "--output", "/nowhere/a", **root), "/nowhere/a cannot be written"),
    ):
        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert not any(token["OPENBAO_TOKEN"] in done.stderr for token in (root, small, wrong))


def test_the_policies_are_printed_with_the_names_of_the_settings(operator: Operator) -> None:
    """Without asking OpenBao anything; with the default names they are the files."""
    for words, name in ((["policy"], "scheduler"), (["policy", "--operator"], "operator")):
        text = (ROOT / "backends" / f"airavata-{name}.hcl").read_text()

        assert operator.types(*words).stdout == text
        other = operator.types(*words, OPENBAO_TRANSIT_KEY="mine").stdout
        assert other == text.replace("/credentials/rotate", "/mine/rotate").replace(
            "/credentials/config", "/mine/config"
        ).replace("crypt/credentials", "crypt/mine").replace(
            "rewrap/credentials", "rewrap/mine"
        ).replace('keys/credentials"', 'keys/mine"')
