"""What a user meets who makes mistakes, or whose machines do: a reason, and what to type next."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.acceptance.system import BIN, LocalSystem, bare_environment
from tests.servers.programs import free_port
from tests.small_disk import small_disk
from tests.waiting import wait_until

SOON_S = 15.0  # "within seconds", with much room on a busy machine
FULL_DISK_MB = 640  # the agent takes no work below 500 MB

SCRIPT = """
name: {name}
scripts:
  RUN: |
    #!/bin/bash
{script}
tasks:
  run:
    script: RUN
"""


def experiment(folder: Path, script: str, *more: str) -> tuple[str, str]:
    """Write an experiment of one task; its file and its name."""
    name = folder.name.replace("_", "-")
    lines = "\n".join(f"    {line}" for line in script.strip().splitlines())
    text = SCRIPT.format(name=name, script=lines) + "".join(f"    {line}\n" for line in more)
    (folder / "run.yml").write_text(text)
    return str(folder / "run.yml"), name


def started_watch(
    local: LocalSystem, folder: Path, *arguments: str
) -> tuple[subprocess.Popen[bytes], Path]:
    """Start `airavata …` beside the test; it and the file with what it says."""
    said = folder / "said"
    with said.open("wb") as output:
        process = subprocess.Popen(
            # A script's background jobs ignore ^C, and so do their children: not this one.
            ["env", "--default-signal=INT", str(BIN / "airavata"), *arguments],
            env=local.environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return process, said


def alive(pid: int) -> bool:
    """Whether a process runs under this id."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_wrong_key_in_the_file(local: LocalSystem, folder: Path) -> None:
    """The field, what is probably meant, and exit code 2; nothing is made."""
    path, name = experiment(folder, "true", "tmeout: 10m")

    done = local.airavata("experiment", "run", path)

    assert done.returncode == 2
    assert "tmeout" in done.stderr
    assert "timeout" in done.stderr
    assert "Traceback" not in done.stderr
    assert local.airavata("experiment", "get", name).returncode == 4


def test_a_script_that_fails(local: LocalSystem, folder: Path) -> None:
    """Exit code 1; the summary has the reason, the end of the log and what to type next."""
    path, _ = experiment(folder, "echo reading mesh\necho 'mesh.msh: bad magic' >&2\nexit 3")

    done = local.airavata("experiment", "run", path, "--watch")

    assert done.returncode == 1
    assert "exit code 3" in done.stdout
    assert "exit_nonzero" in done.stdout
    assert "mesh.msh: bad magic" in done.stdout
    assert "--failed" in done.stdout


def test_an_output_that_is_missing(local: LocalSystem, folder: Path) -> None:
    """The failure names the pattern and what lies there instead."""
    path, _ = experiment(folder, "echo 1 > resutl.csv", 'task_outputs: {RESULT: "result*.csv"}')

    done = local.airavata("experiment", "run", path, "--watch")

    assert done.returncode == 1
    assert "output_missing" in done.stdout
    assert "result*.csv" in done.stdout
    assert "resutl.csv" in done.stdout


def test_no_agent_runs(local: LocalSystem, folder: Path) -> None:
    """`--watch` says within seconds what is missing; ^C leaves the work and says how to end it."""
    made = local.airavata("resource", "compute", "create", "nobody", "--kind", "BARE_METAL")
    path, name = experiment(folder, "true")

    watch, said = started_watch(
        local, folder, "experiment", "run", path, "--compute", "nobody", "--watch"
    )
    wait_until(lambda: "install-line" in said.read_text(), timeout_s=SOON_S, message="the reason")
    watch.send_signal(signal.SIGINT)
    code = watch.wait(SOON_S)

    assert made.returncode == 0, made.stderr
    assert code == 130, said.read_text()
    assert "nobody" in said.read_text()
    assert "install-line" in said.read_text()
    assert "experiment cancel" in said.read_text()
    assert "Traceback" not in said.read_text()
    assert local.answer("experiment", "status", name)["state"] == "RUNNING"
    assert local.airavata("experiment", "cancel", name).returncode == 0


def test_an_unknown_experiment(local: LocalSystem, folder: Path) -> None:
    """Exit code 4 and the nearest names."""
    path, name = experiment(folder, "true")
    assert local.airavata("experiment", "run", path, "--watch").returncode == 0

    done = local.airavata("experiment", "status", name[:-1])

    assert done.returncode == 4
    assert name in done.stderr


def test_no_server_there(tmp_path: Path) -> None:
    """Exit code 5 after at most about five seconds, with the address and the next step."""
    address = f"http://127.0.0.1:{free_port()}"
    system = LocalSystem(
        folder=tmp_path, extra={"AIRAVATA_SERVER": address, "AIRAVATA_TOKEN": "a-token"}
    )
    started = time.monotonic()

    done = system.airavata("experiment", "list")

    assert done.returncode == 5
    assert time.monotonic() - started < 10  # five, on a busy machine
    assert address in done.stderr
    assert "airavata-scheduler local" in done.stderr
    assert len(done.stderr.splitlines()) <= 3


def test_nobody_is_logged_in(local: LocalSystem, tmp_path: Path) -> None:
    """Exit code 3, and how to log in."""
    status = local.status()
    assert status is not None
    stranger = LocalSystem(folder=tmp_path, extra={"AIRAVATA_SERVER": status["url"]})

    done = stranger.airavata("experiment", "list")

    assert done.returncode == 3
    assert "airavata auth login" in done.stderr
    assert len(done.stderr.splitlines()) <= 3


def test_a_time_limit_ends_the_whole_group(local: LocalSystem, folder: Path) -> None:
    """A task that runs for too long is stopped with everything that it started."""
    script = f"sleep 600 &\necho $! > {folder}/child\nsh -c 'sleep 601 & wait' &\nwait"
    path, _ = experiment(folder, script, "timeout: 2s")

    done = local.airavata("experiment", "run", path, "--watch")

    assert done.returncode == 1
    assert "timeout" in done.stdout
    assert "time limit" in done.stdout
    wait_until(
        lambda: not alive(int((folder / "child").read_text())),
        timeout_s=SOON_S,
        message="the child of the payload lives",
    )


def test_a_memory_limit(local: LocalSystem, folder: Path) -> None:
    """A task that takes more memory than it asked for fails with that reason."""
    path, name = experiment(
        folder,
        "python3 -c 'import time; held = bytearray(600 << 20); time.sleep(600)'",
        "resources: {compute: {ram_gb: 0.1}}",
        "timeout: 60s",
    )

    done = local.airavata("experiment", "run", path, "--watch")

    assert done.returncode == 1
    assert "out_of_memory" in done.stdout, done.stdout
    assert local.answer("experiment", "status", name)["counts"]["failed"] == 1


def test_a_running_task_is_cancelled(local: LocalSystem, folder: Path) -> None:
    """`task cancel` ends the payload, whatever it does with SIGTERM, within seconds."""
    script = f"trap '' TERM\necho $$ > {folder}/pid\nwhile true; do sleep 1; done"
    path, name = experiment(folder, script)
    assert local.airavata("experiment", "run", path).returncode == 0
    wait_until((folder / "pid").is_file, timeout_s=SOON_S, message="the payload to start")
    pid = int(wait_until((folder / "pid").read_text, message="the payload's pid"))

    done = local.airavata("task", "cancel", f"{name}/run[0]")

    assert done.returncode == 0, done.stderr
    wait_until(lambda: not alive(pid), timeout_s=2 * SOON_S, message="the payload lives")
    ended = local.airavata("experiment", "watch", name, "--timeout", "20s")
    assert ended.returncode == 0, "cancelling one task does not fail the experiment"
    assert local.answer("task", "get", f"{name}/run[0]")["state"] == "CANCELLED"


@contextmanager
def agent_on(local: LocalSystem, disk: Path, compute: str) -> Iterator[None]:
    """An agent of its own compute resource whose every file is on `disk`."""
    status = local.status()
    assert status is not None
    made = local.airavata("resource", "compute", "create", compute, "--kind", "BARE_METAL")
    assert made.returncode == 0, made.stderr
    environment = bare_environment(local.folder) | {
        "API_URL": status["agents_url"],
        "AIRAVATA_CA_BUNDLE": str(local.home / "tls" / "ca.pem"),
        "AIRAVATA_AGENT_HOME": str(disk / "agent"),
        "AIRAVATA_ENROLMENT_TOKEN": local.airavata("agent", "token", compute).stdout.strip(),
        "COMPUTE_ID": compute,
        "WORKER_ID": f"{compute}-agent",
    }
    with (local.folder / f"{compute}.out").open("wb") as output:
        agent = subprocess.Popen(
            [str(BIN / "airavata-scheduler"), "worker"],
            env=environment,
            cwd=local.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield
    finally:
        agent.terminate()
        agent.wait(60)


def test_the_disk_of_the_agent_is_full(local: LocalSystem, folder: Path) -> None:
    """A task that fills the disk is told so, is tried again when there is room, and is not lost."""
    script = (
        f"if [ ! -e {folder}/tried ]; then touch {folder}/tried; exec cat /dev/zero > fills; fi\n"
        "echo done > result.txt"
    )
    path, name = experiment(folder, script, "task_outputs: {RESULT: result.txt}")

    with small_disk(folder / "disk", FULL_DISK_MB) as disk, agent_on(local, disk.path, "small"):
        done = local.airavata(
            "experiment", "run", path, "--compute", "small", "--watch", "--timeout", "100s"
        )
        attempts = local.answer("task", "attempts", f"{name}/run[0]")["items"]

    assert done.returncode == 0, done.stdout + done.stderr
    assert [attempt["failure"] and attempt["failure"]["code"] for attempt in attempts] == [
        "disk_full",
        None,
    ]
