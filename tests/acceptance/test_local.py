"""The whole system on one machine, as a new user meets it."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from pathlib import Path

import psutil

from tests.acceptance.system import ROOT, LocalSystem
from tests.waiting import wait_until

SWEEP = """
name: million
parameters:
  POINT: {type: int}
scripts:
  COUNT: |
    #!/bin/sh
    echo "$POINT"
tasks:
  count:
    script: COUNT
    task_inputs: {POINT: 1..%s}
"""


def test_it_says_where_it_is_and_what_to_type_next(local: LocalSystem) -> None:
    """When it is ready it prints its address and three commands."""
    said = (local.folder / "supervisor.out").read_text()

    status = local.status()

    assert status is not None
    assert status["url"] in said
    commands = [line.split() for line in said.splitlines() if line.startswith("  ")]
    typed = [words[1:3] for words in commands if words[0].endswith("airavata")]
    assert typed == [["experiment", "run"], ["experiment", "list"], ["agent", "list"]]
    assert {child["name"] for child in status["children"]} == {
        "redis",
        "spicedb",
        "openbao",
        "api",
        "agents-api",
        "daemon",
        "agent",
    }


def test_it_needs_no_login(local: LocalSystem) -> None:
    """`local` wrote a profile, so the user's command works at once."""
    me = local.answer("whoami")

    assert me["name"]


def test_a_second_start_says_that_it_runs(local: LocalSystem) -> None:
    """Starting it twice is no error and starts nothing."""
    before = local.status()

    done = local.scheduler("local")

    assert done.returncode == 0
    assert before is not None
    assert before["url"] in done.stdout
    assert local.status() == before


def test_the_diffusion_example_runs_to_its_picture(local: LocalSystem, folder: Path) -> None:
    """601 real tasks; the files arrive with the SHA-256 that the server has."""
    done = local.airavata(
        "experiment", "run", str(ROOT / "examples" / "diffusion.yml"), "--watch", timeout_s=280
    )

    assert done.returncode == 0, done.stdout + done.stderr
    progress = local.answer("experiment", "status", "diffusion-sweep")
    assert progress["counts"]["completed"] == 601
    fetched = local.airavata(
        "experiment", "download", "diffusion-sweep", "--output", str(folder / "r"), "--extract"
    )
    assert fetched.returncode == 0, fetched.stderr
    artifacts = local.answer("experiment", "outputs", "diffusion-sweep")["items"]
    assert len(artifacts) == 601
    for artifact in artifacts:
        path = folder / "r" / artifact["node"] / str(artifact["index"]) / artifact["path"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == artifact["sha256"]
    pictures = [path for path in (folder / "r" / "report" / "0").iterdir() if path.suffix == ".png"]
    assert pictures
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    metrics = urllib.request.urlopen(f"{local.status()['url']}/metrics").read().decode()  # type: ignore[index]
    assert "scheduler_workers_active{" in metrics


def test_a_million_points_are_one_record(local: LocalSystem, folder: Path) -> None:
    """A large sweep is accepted without being expanded, runs at once, and is cancelled at once."""
    (folder / "sweep.yml").write_text(SWEEP % 1_000_000)

    done = local.airavata("experiment", "run", str(folder / "sweep.yml"))

    assert done.returncode == 0, done.stderr
    wait_until(
        lambda: local.answer("experiment", "status", "million")["counts"]["completed"] > 100,
        timeout_s=60.0,
        message="no task of the sweep completed",
    )
    assert local.airavata("experiment", "cancel", "million").returncode == 0
    wait_until(
        lambda: local.answer("experiment", "status", "million")["state"] == "CANCELLED",
        timeout_s=60.0,
        message="the sweep was not cancelled",
    )
    counts = local.answer("experiment", "status", "million")["counts"]
    assert counts["completed"] + counts["cancelled"] + counts["failed"] == 1_000_000


def test_a_trillion_points_are_accepted_or_refused_with_a_sentence(
    local: LocalSystem, folder: Path
) -> None:
    """10^12 points are never expanded; more than the limit is refused."""
    (folder / "accepted.yml").write_text(SWEEP.replace("million", "trillion") % 10**12)
    (folder / "refused.yml").write_text(SWEEP.replace("million", "too-many") % (10**12 + 1))

    accepted = local.airavata("experiment", "run", str(folder / "accepted.yml"), "--dry-run")
    refused = local.airavata("experiment", "run", str(folder / "refused.yml"))

    assert accepted.returncode == 0, accepted.stderr
    assert refused.returncode == 2
    assert "1000000000000" in refused.stderr.replace(",", "").replace("_", "")


def test_stopping_leaves_no_process_and_the_next_start_goes_on(tmp_path: Path) -> None:
    """`--stop` ends every child; `--detach` returns when ready; what was stored is still there."""
    system = LocalSystem(folder=tmp_path)
    started = system.scheduler("local", "--detach", "--port", "0")
    assert started.returncode == 0, started.stderr
    status = json.loads(system.scheduler("local", "--status", "--json").stdout)
    pids = [status["pid"], *(child["pid"] for child in status["children"])]
    system.airavata("project", "create", "kept")

    stopped = system.scheduler("local", "--stop")

    assert stopped.returncode == 0, stopped.stderr
    assert not [pid for pid in pids if psutil.pid_exists(pid) and _is_alive(pid)]
    again = system.scheduler("local", "--detach", "--port", "0")
    try:
        assert again.returncode == 0, again.stderr
        assert system.answer("project", "get", "kept")["name"] == "kept"
    finally:
        system.scheduler("local", "--stop")


def _is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
