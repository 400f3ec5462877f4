"""The audit's chain as it is used: the daemon's job, the metrics, the two verifiers."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from airavata_scheduler.functions import audit
from airavata_scheduler.models import audit_chain, deployment
from airavata_scheduler.models.database import execute, transaction
from airavata_scheduler.models.tables import AuditEntry
from airavata_scheduler.queue import jobs
from tests.api import Api
from tests.client_server import run_here
from tests.integration.test_functions_metrics import value
from tests.silently import another_process


def write(count: int) -> None:
    """Entries that are not sealed yet."""
    with transaction():
        for number in range(count):
            audit.append("create", "project", f"object-{number}")


def later() -> None:
    """Let the job's turn come again."""
    execute("UPDATE deployment SET at = at - 600000")


def heads(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The heads in the log, oldest first."""
    return [
        text.removeprefix("audit: head ")
        for text in caplog.messages
        if text.startswith("audit: head ")
    ]


def test_the_daemon_seals_and_leaves_a_witness(
    fresh_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """More than a batch in one go; the head goes to the log once a minute, if it changed."""
    caplog.set_level(logging.INFO)
    write(audit_chain.BATCH + 3)
    jobs.sealing()
    first = audit_chain.head()

    later()
    jobs.sealing()
    write(1)
    later()
    jobs.sealing()

    assert first.seq == audit_chain.BATCH + 3
    assert heads(caplog) == [str(first), str(audit_chain.head())]
    assert audit_chain.verify(audit_chain.Head.read(heads(caplog)[0])).fault is None


def test_a_damaged_head_is_said(fresh_database: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is sealed onto a head that is none; entries are written all the same."""
    write(2)
    jobs.sealing()
    deployment.write("audit:head", "nonsense")
    write(1)
    later()

    jobs.sealing()

    assert "nothing is sealed: The head in the database was changed" in caplog.text
    assert AuditEntry.select().where(AuditEntry.seq.is_null()).count() == 1


def test_the_metrics_say_how_much_and_how_late(api: Api) -> None:
    """From the head's row, never by counting."""
    write(3)
    execute("UPDATE audit SET at = at - 90000")
    late = value(api, "scheduler_audit_unsealed_seconds")

    jobs.sealing()

    assert late is not None
    assert 90 <= late < 120
    assert value(api, "scheduler_audit_unsealed_seconds") == 0
    assert value(api, "scheduler_audit_entries_total") == 3
    deployment.write("audit:head", "nonsense")
    assert value(api, "scheduler_audit_entries_total") == 0


def test_the_operators_verifier(api: Api) -> None:
    """0 for a good chain, 1 with the first fault, a sentence for a head that is none."""
    write(3)
    jobs.sealing()
    head = str(audit_chain.head())

    def verify(*arguments: str) -> tuple[int, str]:
        ran = another_process(api.config, "audit", "verify", *arguments)
        return ran.returncode, ran.stdout + ran.stderr

    assert verify("--head", head) == (0, f"3 entries are good. The head: {head}\n")
    assert "made anew" in verify("--head", f"2:{'e' * 64}")[1]
    assert "--head must be SEQ:HASH" in verify("--head", "2")[1]
    execute("UPDATE audit SET actor_id = 'eve' WHERE seq = 3")
    status, said = verify()
    assert status == 1
    assert "Entry 3 " in said
    assert "2 entries before it are good" in said


def test_the_offline_verifier(fresh_database: str, tmp_path: Path) -> None:
    """It needs no server and no login: 0, 1 with the first fault, 2 for what is no export."""
    write(3)
    jobs.sealing()
    head = audit_chain.head()
    lines = [json.dumps(entry, sort_keys=True) for entry in audit_chain.entries()]
    lines.append(json.dumps({"head": {"seq": head.seq, "hash": head.hash}}))
    file = tmp_path / "audit.ndjson"

    def verify(text: str, *arguments: str) -> tuple[int, str]:
        file.write_text(text, encoding="utf-8")
        ran = run_here("audit", "verify", str(file), *arguments)
        return ran.status, ran.out + ran.err

    good = "\n".join(lines) + "\n"
    assert verify(good) == (0, f"3 entries are good. The head: {head}\n")
    assert verify(good, "--head", str(head))[0] == 0
    assert json.loads(verify(good, "--json")[1])["fault"] is None
    assert verify(good, "--head", f"2:{'e' * 64}")[0] == 1
    assert verify(good.replace("object-1", "object-9"))[0] == 1
    assert verify("\n".join(lines[:-1]))[0] == 1
    assert verify("")[0] == 1
    assert verify(good, "--head", "2")[0] == 2
    assert verify("no export\n")[0] == 2
    assert verify("ü\n")[0] == 2
