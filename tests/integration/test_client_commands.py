"""The `airavata` command against the real application."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import pytest

from tests.client_server import RunCommand, Served, command, run_here, served
from tests.waiting import wait_until
from tests.work import sweep

__all__ = ["command", "served"]


def experiment_file(folder: Path, **more: object) -> Path:
    """A sweep of three as a JSON file."""
    path = folder / "sweep.json"
    path.write_text(json.dumps(sweep(**more)), encoding="utf-8")  # type: ignore[arg-type]
    return path


def test_whoami_names_user_server_and_project(served: Served, command: RunCommand) -> None:
    """`whoami` is a line, and one for the roles, for people; JSON with the same for programs."""
    plain = command("whoami")
    as_json = json.loads(command("whoami", "--json").out)

    assert plain.out.splitlines() == [
        f"ada (administrator) at {served.url}, project spine",
        "projects: spine (owner)",
    ]
    assert (as_json["name"], as_json["server"]) == ("ada", served.url)


def test_without_login_the_exit_status_is_3(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that needs a login says how to get one, in three lines at most."""
    monkeypatch.setenv("AIRAVATA_CONFIG_DIR", str(tmp_path / "empty"))

    ran = run_here("whoami", "--server", served.url)

    assert ran.status == 3
    assert "airavata auth login" in ran.err
    assert len(ran.err.splitlines()) <= 3


def test_a_project_is_made_listed_changed_and_deleted(command: RunCommand) -> None:
    """The life of a project on the command line."""
    made = command("project", "create", "waves", "--description", "ripples")
    listed = command("project", "list", "--json")
    changed = command("project", "update", "waves", "--description", "tides")
    deleted = command("project", "delete", "waves")

    assert [ran.status for ran in (made, listed, changed, deleted)] == [0, 0, 0, 0]
    assert "waves" in [item["name"] for item in json.loads(listed.out)["items"]]
    assert "waves" not in command("project", "list").out


def test_members_are_added_promoted_and_removed(served: Served, command: RunCommand) -> None:
    """`add-member` for somebody who is a member changes the role."""
    served.api.user("grace")

    first = command("project", "add-member", "spine", "grace", "--role", "viewer")
    second = command("project", "add-member", "spine", "grace", "--role", "admin")
    members = json.loads(command("project", "members", "spine", "--json").out)["items"]
    removed = command("project", "remove-member", "spine", "grace")

    assert (first.status, second.status, removed.status) == (0, 0, 0)
    assert {member["name"]: member["role"] for member in members}["grace"] == "admin"


def test_a_wrong_name_is_answered_with_the_nearest(command: RunCommand) -> None:
    """Exit status 4, and the nearest names."""
    ran = command("project", "get", "spin")

    assert ran.status == 4
    assert "spine" in ran.err
    assert len(ran.err.splitlines()) <= 3


def test_run_dry_run_starts_nothing(served: Served, command: RunCommand, tmp_path: Path) -> None:
    """The preview shows the tasks, the first parameter sets and where they would run."""
    served.site(agent=False)

    ran = command("experiment", "run", str(experiment_file(tmp_path)), "--dry-run")

    assert ran.status == 0, ran.err
    assert "3 tasks; nothing was started" in ran.out
    assert "[0] SEED=1" in ran.out or "SEED=1" in ran.out
    assert "cannot run on cluster" in ran.out
    assert json.loads(command("experiment", "list", "--json").out) == {"items": []}


def test_mistakes_in_the_file_name_field_and_line(command: RunCommand, tmp_path: Path) -> None:
    """A wrong key: exit status 2, what is meant, at most three lines, no traceback."""
    path = tmp_path / "wrong.yml"
    path.write_text("tasks:\n  a:\n    scrpt: |\n      echo\n", encoding="utf-8")

    ran = command("experiment", "run", str(path))

    assert ran.status == 2
    assert "scrpt" in ran.err
    assert "script" in ran.err
    assert len(ran.err.splitlines()) <= 3


def test_run_watch_ends_with_a_summary_and_download_checks_every_file(
    served: Served, command: RunCommand, tmp_path: Path
) -> None:
    """The whole way: run, watch to the end, download, and again without fetching anything."""
    site = served.site()
    submitted = command("experiment", "run", str(experiment_file(tmp_path)), "--quiet")
    name = submitted.out.strip()
    site.settle()
    for grant in site.claim(3):
        site.start(grant)
        site.complete(grant, outputs={"result.csv": b"%d\n" % grant.idx})
    site.settle()

    watched = command("experiment", "watch", name)
    first = command(
        "experiment", "download", name, "--output", str(tmp_path / "out"), "--extract", "--json"
    )
    second = command(
        "experiment", "download", name, "--output", str(tmp_path / "out"), "--extract", "--json"
    )

    assert watched.status == 0, watched.err
    assert first.status == 0, first.err
    assert "3 completed" in watched.out
    assert f"airavata experiment download {name}" in watched.out
    assert json.loads(first.out)["fetched"] == 3
    assert json.loads(second.out)["fetched"] == 0
    assert (tmp_path / "out" / "simulate" / "1" / "result.csv").read_bytes() == b"1\n"


def test_download_as_one_archive_is_verified_and_completed(
    served: Served, command: RunCommand, tmp_path: Path
) -> None:
    """Without --extract there is one tar.gz; a second run adds only what is new."""
    site = served.site()
    name = command("experiment", "run", str(experiment_file(tmp_path)), "--quiet").out.strip()
    site.settle()
    grants = site.claim(3)
    site.start(*grants)
    site.complete(grants[0], outputs={"result.csv": b"first"})
    target = tmp_path / "archives"

    one = json.loads(command("experiment", "download", name, "--output", str(target), "--json").out)
    for grant in grants[1:]:
        site.complete(grant, outputs={"result.csv": b"later"})
    two = json.loads(command("experiment", "download", name, "--output", str(target), "--json").out)
    three = json.loads(
        command("experiment", "download", name, "--output", str(target), "--json").out
    )

    assert (one["files"], one["fetched"]) == (1, 1)
    assert (two["files"], two["fetched"]) == (3, 2)
    assert (three["files"], three["fetched"]) == (3, 0)
    assert three["path"].endswith(".tar.gz")


def test_a_failed_experiment_shows_reason_log_tail_and_next_commands(
    served: Served, command: RunCommand, tmp_path: Path
) -> None:
    """Exit status 1; the failure, the last lines of its log, and `retry`."""
    site = served.site()
    name = command("experiment", "run", str(experiment_file(tmp_path)), "--quiet").out.strip()
    site.settle()
    grants = site.claim(3)
    site.start(*grants)
    for grant in grants[:2]:
        site.complete(grant)
    site.fail(grants[2], "exit status 3", stderr=b"no such file\nboom\n")
    site.settle()

    watched = command("experiment", "watch", name)
    retried = command("experiment", "retry", name, "--failed-only")

    assert watched.status == 1
    assert "simulate[2]: exit status 3" in watched.out
    assert "| boom" in watched.out
    assert f"airavata experiment retry {name} --failed-only" in watched.out
    assert retried.status == 0, retried.err


def test_watch_that_runs_out_of_time_says_why_nothing_moves(
    served: Served, command: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No agent: the watch says so, ends with exit status 6, and the work goes on."""
    monkeypatch.setattr("airavata_scheduler.client.watch.STILL_AFTER_S", 0.0)
    site = served.site(agent=False)
    name = command("experiment", "run", str(experiment_file(tmp_path)), "--quiet").out.strip()
    site.settle()

    ran = command("experiment", "watch", name, "--timeout", "2s")

    assert ran.status == 6
    assert "agent" in ran.err
    assert "It goes on." in ran.err


def test_a_task_by_name_with_its_logs(served: Served, command: RunCommand, tmp_path: Path) -> None:
    """`EXPERIMENT/simulate[1]` names a task; its log is printed as it was written."""
    site = served.site()
    experiment = json.loads(
        command("experiment", "run", str(experiment_file(tmp_path)), "--json").out
    )
    site.settle()
    for grant in site.claim(3):
        site.start(grant)
        site.complete(grant, stdout=b"seed %d\n" % grant.idx)
    task = f"{experiment['name']}/simulate[1]"

    shown = json.loads(command("task", "get", task, "--json").out)
    log = command("task", "logs", task, "--stream", "stdout")
    missing = command("task", "get", f"{experiment['name']}/simulate[7]")

    assert (shown["node"], shown["index"], shown["state"]) == ("simulate", 1, "COMPLETED")
    assert log.out == "seed 1\n"
    assert missing.status == 4


def test_pause_resume_cancel(served: Served, command: RunCommand, tmp_path: Path) -> None:
    """An experiment is steered by name or by a prefix of its id."""
    site = served.site()
    experiment = json.loads(
        command("experiment", "run", str(experiment_file(tmp_path)), "--json").out
    )
    site.settle()

    states = [
        json.loads(command("experiment", action, experiment["id"], "--json").out)["state"]
        for action in ("pause", "resume", "cancel")
    ]

    assert states[:2] == ["PAUSED", "RUNNING"]
    assert command("experiment", "status", experiment["id"][:23]).status == 0
    assert states[2] == "CANCELLED"


def test_local_files_of_an_experiment_are_sent_as_blobs(
    served: Served, command: RunCommand, tmp_path: Path
) -> None:
    """A file and a table that the document names travel with it."""
    (tmp_path / "model.dat").write_bytes(b"\x00" * 1000)
    (tmp_path / "sets.csv").write_text("SEED\n5\n7\n", encoding="utf-8")
    path = tmp_path / "files.yml"
    path.write_text(
        "files: [model.dat]\n"
        "parameters: {SEED: {type: int}}\n"
        "scripts: {RUN: 'echo $SEED'}\n"
        "tasks: {run: {script: RUN, rows: sets.csv}}\n",
        encoding="utf-8",
    )

    ran = command("experiment", "run", str(path), "--json")
    digest = hashlib.sha256(b"\x00" * 1000).hexdigest()

    assert ran.status == 0, ran.err
    assert json.loads(ran.out)["total"] == 2
    assert served.ada.get(f"/projects/spine/blobs/{digest}").data == b"\x00" * 1000


def test_a_python_function_is_registered_and_called(
    served: Served, command: RunCommand, tmp_path: Path
) -> None:
    """`FILE.py:name` gives typed parameters; a call answers with the result that the agent gave."""
    path = tmp_path / "area.py"
    path.write_text(
        'def area(width: float, height: float = 2.0) -> float:\n    """Area of a box."""\n'
        "    return width * height\n",
        encoding="utf-8",
    )
    site = served.site()

    registered = json.loads(command("function", "register", f"{path}:area", "--json").out)
    again = json.loads(command("function", "register", f"{path}:area", "--json").out)
    call_id = command("function", "call", "area", "width=1.5").out.strip()
    wrong = command("function", "call", "area", "width=wide")
    grant = site.claim(1)[0]
    site.start(grant)
    site.complete(grant, result={"encoding": "json", "data": 3.0})
    result = command("function", "result", call_id, "--wait", "10s")

    assert registered["spec"]["description"] == "Area of a box."
    assert registered["spec"]["parameters"]["width"]["type"] == "float"
    assert (registered["version"], again["version"]) == (1, 1)
    assert wrong.status == 2
    assert "width" in wrong.err
    assert json.loads(grant.arguments or "")["data"] == {"width": 1.5, "height": 2.0}
    assert (result.status, result.out) == (0, "3.0\n")


def test_a_call_that_nobody_takes_times_out_with_the_reason(
    served: Served, command: RunCommand, tmp_path: Path
) -> None:
    """Exit status 6 and the sentence that says what is missing."""
    path = tmp_path / "f.py"
    path.write_text("def f(x: int) -> int:\n    return x\n", encoding="utf-8")
    served.site(agent=False)
    command("function", "register", f"{path}:f")

    ran = command("function", "call", "f", "x=1", "--wait", "200ms")

    assert ran.status == 6
    assert "agent" in ran.err


def test_map_calls_once_a_line_in_order(
    served: Served, command: RunCommand, tmp_path: Path
) -> None:
    """A CSV gives one call a line; results come in its order, a failure is exit status 1."""
    path = tmp_path / "f.py"
    path.write_text("def f(x: int) -> int:\n    return x\n", encoding="utf-8")
    inputs = tmp_path / "inputs.csv"
    inputs.write_text("x\n1\n2\n3\n", encoding="utf-8")
    site = served.site()
    command("function", "register", f"{path}:f")

    def work() -> None:
        grants = wait_until(lambda: site.claim(3), message="three calls")
        site.start(*grants)
        for grant in reversed(grants):
            value = json.loads(grant.arguments or "")["data"]["x"] * 10
            site.complete(grant, result={"encoding": "json", "data": value})

    worker = threading.Thread(target=work)
    worker.start()
    ran = command("function", "map", "f", "--inputs", str(inputs))
    worker.join()

    assert (ran.status, ran.out) == (0, "10\n20\n30\n")


def test_login_logout_and_a_wrong_password(
    served: Served, command: RunCommand, tmp_path: Path
) -> None:
    """The password comes from standard input; a wrong one is exit status 3; logout forgets."""
    made = json.loads(command("user", "create", "grace", "--json").out)
    link = made["link"].replace("http://localhost:8080", served.url)
    link = f"{served.url}/bootstrap?{link.partition('?')[2]}"
    folder = ("--config-dir", str(tmp_path / "grace"))

    set_ = command(
        "auth", "set-password", link, "--password-stdin", *folder, stdin="correct horse battery\n"
    )
    out = command("auth", "logout", *folder)
    wrong = command("auth", "login", "grace", "--password-stdin", *folder, stdin="wrong\n")
    right = command(
        "auth", "login", "grace", "--password-stdin", *folder, stdin="correct horse battery\n"
    )

    assert set_.status == 0, set_.err
    assert out.status == 0
    assert wrong.status == 3
    assert right.status == 0, right.err
    assert command("whoami", *folder).out.startswith("grace at ")


def test_a_compute_resource_and_its_install_line(command: RunCommand) -> None:
    """A resource is made and changed, and gives the line that installs an agent."""
    made = command("resource", "compute", "create", "box", "--kind", "bare_metal", "--max-cpu", "4")
    changed = command("resource", "compute", "update", "box", "--max-ram-gb", "16", "--json")
    line = command("agent", "install-line", "box")
    status = command("resource", "status", "box", "--json")

    assert made.status == 0, made.err
    assert json.loads(changed.out)["limits"] == {"max_cpu": 4, "max_ram_gb": 16.0}
    assert "install.sh" in line.out
    assert json.loads(status.out)["online"] is False
    assert json.loads(command("agent", "list", "--json").out) == {"items": []}
