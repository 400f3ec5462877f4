"""The agent's smaller parts: settings, policy, folders, outputs, logs, back-off, environment."""

from __future__ import annotations

import ast
import io
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from airavata_scheduler.agent.backoff import BackOff, may_retry, retry_after_s
from airavata_scheduler.agent.faults import BadSetting, FolderBusy, UnsafeFolder
from airavata_scheduler.agent.framing import FrameReader, frame
from airavata_scheduler.agent.lease_book import READY, Held, LeaseBook
from airavata_scheduler.agent.log_files import LogFile, trim_log
from airavata_scheduler.agent.machine import Capacity
from airavata_scheduler.agent.oplog import OpLog
from airavata_scheduler.agent.outputs import OutputProblem, find_outputs, open_output
from airavata_scheduler.agent.payload_order import environment_refusal, payload_environment
from airavata_scheduler.agent.places import Places, is_lease_name
from airavata_scheduler.agent.policy import Policy, interpreter_of, read_policy
from airavata_scheduler.agent.settings import duration_s, read_settings
from airavata_scheduler.agent.state_folder import Identity, StateFolder
from airavata_scheduler.agent.version import VERSION

ROOT = Path(__file__).parents[2]


def _held(number: int = 1, **spec: Any) -> Held:
    lease = f"task-{number}.1.{number:032x}"
    offer = {"lease": lease, "task_id": f"task-{number}", "attempt": 1, "name": "n[3]", "spec": "s"}
    return Held(lease, offer, {"kind": "script", "cpu": 1, "ram_mb": 0, "gpu": 0, **spec}, READY)


def test_only_the_standard_library_is_imported() -> None:
    """Every import of the agent is of Python 3.9's own library, or of the agent."""
    foreign = set()
    for path in (ROOT / "agent").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                own = name.startswith("airavata_scheduler.agent")
                if not own and name.split(".")[0] not in sys.stdlib_module_names:
                    foreign.add((path.name, name))

    assert foreign == set()


def test_no_module_is_named_like_a_standard_one() -> None:
    """`python agent/` puts the folder first on the path."""
    names = {path.stem for path in (ROOT / "agent").glob("*.py")} - {"__main__"}

    assert names & set(sys.stdlib_module_names) == set()


def test_the_version_is_that_of_the_package() -> None:
    """One number for wheel and agent."""
    assert f"version = {VERSION}\n" in (ROOT / "setup.cfg").read_text()


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("1m30s", 90), ("15", 15), ("2h", 7200)]
)
def test_durations_are_go_style(text: str, seconds: float) -> None:
    """The guide's own notation, or bare seconds."""
    assert duration_s(text, "POLL_INTERVAL") == seconds


@pytest.mark.parametrize(
    "environ",
    [
        {"POLL_INTERVAL": "soon"},
        {"LOG_LEVEL": "loud"},
        {"API_URL": "ftp://host"},
        {"API_URL": "http://user:secret@host"},
        {"AIRAVATA_ENROLMENT_TOKEN_FILE": "/no/such/file"},
    ],
)
def test_malformed_settings_stop_the_start(environ: dict[str, str]) -> None:
    """One sentence that names the setting."""
    with pytest.raises(BadSetting, match=next(iter(environ))):
        read_settings(environ)


def test_the_authority_beside_the_identity_is_trusted(tmp_path: Path) -> None:
    """install.sh leaves it there; a verb that the owner types has no variable for it."""
    environ = {"AIRAVATA_AGENT_HOME": str(tmp_path)}

    before = read_settings(environ).ca_bundle
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----")
    named = read_settings({**environ, "AIRAVATA_CA_BUNDLE": "/etc/ssl/site.pem"}).ca_bundle

    assert before is None
    assert read_settings(environ).ca_bundle == tmp_path / "ca.pem"
    assert named == Path("/etc/ssl/site.pem")


def test_the_guides_variables_are_read() -> None:
    """worker.env of the deployment guide, an unexpanded $(hostname) included."""
    settings = read_settings(
        {
            "WORKER_ID": "worker-$(hostname)",
            "COMPUTE_ID": "local-compute",
            "API_URL": "http://scheduler-api:8080/",
            "OUTPUT_DIR": "/data/output",
            "POLL_INTERVAL": "30s",
            "AIRAVATA_ENROLMENT_TOKEN": "ase_secret",
        }
    )

    assert settings.name == f"worker-{os.uname().nodename}"
    assert settings.api_url == "http://scheduler-api:8080"
    assert settings.work_root == Path("/data/output")
    assert settings.home.parent == Path("/data/output")
    assert "ase_secret" not in repr(settings)


def test_the_log_hides_secrets_and_stays_on_one_line() -> None:
    """Whatever is put into it: no secret, no line break, no escape sequence."""
    stream = io.StringIO()
    log = OpLog("info", stream)
    log.hide("topsecret123")

    log.info("a\nb \x1b[31m topsecret123", lease="x y")

    assert stream.getvalue().count("\n") == 1
    assert "topsecret123" not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
    assert 'lease="x y"' in stream.getvalue()


def test_a_state_folder_is_private(tmp_path: Path) -> None:
    """0700 and 0600; a link is refused; an identity survives."""
    folder = StateFolder(tmp_path / "home")
    identity = Identity("a", "n", "c", "http://x", "s" * 64)
    folder.keep_identity(identity)
    (tmp_path / "link").symlink_to(tmp_path / "home")

    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert (folder.path / "identity.json").stat().st_mode & 0o777 == 0o600
    assert StateFolder(tmp_path / "home").identity() == identity
    assert "ssss" not in repr(identity)
    with pytest.raises(UnsafeFolder):
        StateFolder(tmp_path / "link")


def test_an_identity_behind_a_link_is_not_read(tmp_path: Path) -> None:
    """Files of the state folder are opened without following links."""
    folder = StateFolder(tmp_path / "home")
    (tmp_path / "other.json").write_text('{"agent_id": "x"}')
    (folder.path / "identity.json").symlink_to(tmp_path / "other.json")

    assert folder.find_identity() is None


def test_one_agent_per_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one is told so; another host needs the person's word."""
    first = StateFolder(tmp_path / "home")
    first.lock()
    with pytest.raises(FolderBusy):
        StateFolder(tmp_path / "home").lock()
    first.unlock()
    monkeypatch.setattr("airavata_scheduler.agent.state_folder.host_id", lambda: "elsewhere")

    with pytest.raises(UnsafeFolder, match="--take-over"):
        StateFolder(tmp_path / "home").lock()
    StateFolder(tmp_path / "home").lock(take_over=True)


def test_the_secret_of_an_enrolment_is_kept_until_it_ends(tmp_path: Path) -> None:
    """A lost answer: the same secret again, so the same agent."""
    folder = StateFolder(tmp_path / "home")

    first = folder.pending_secret()

    assert StateFolder(tmp_path / "home").pending_secret() == first
    folder.end_enrolment()
    assert folder.pending_secret() != first


def test_a_policy_limits_and_says_why(tmp_path: Path) -> None:
    """Each limit has its sentence; what is within it passes."""
    path = tmp_path / "policy.ini"
    path.write_text(
        "[limits]\nmax_cpu = 2\nmax_ram_mb = 100\nmax_gpu = 0\nmax_time = 1h ; each\n"
        "[allow]\npython = no\ninterpreters = /bin/sh, /usr/bin/env python3\n"
    )
    policy = read_policy(path)

    def why(timeout_s: float | None = None, **spec: Any) -> str | None:
        return policy.refusal({"kind": "script", "script": "true", **spec}, timeout_s)

    assert why() is None
    assert why(script="#!/usr/bin/env  python3\n") is None
    assert "interpreter '/bin/bash'" in str(why(script="#!/bin/bash\n"))
    assert "3 cores" in str(why(cpu=3))
    assert "101 MB" in str(why(ram_mb=101))
    assert "1 GPUs" in str(why(gpu=1))
    assert "3600 s" in str(why(3601.0))
    assert "Python functions" in str(policy.refusal({"kind": "python"}, None))
    assert policy.time_limit_s(None) == 3600.0


@pytest.mark.parametrize(
    "text",
    ["[limit]\n", "[limits]\nmax_cpus = 2\n", "[limits]\nmax_cpu = many\n", "max_cpu = 2\n",
     "[limits]\nmax_cpu = -1\n", "[allow]\npython = perhaps\n"],
)  # fmt: skip
def test_a_malformed_policy_stops_the_start(text: str, tmp_path: Path) -> None:
    """A misspelt limit must not silently be no limit."""
    path = tmp_path / "policy.ini"
    path.write_text(text)

    with pytest.raises(BadSetting, match=r"policy\.ini"):
        read_policy(path)


def test_a_policy_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """It is the owner's word."""
    path = tmp_path / "policy.ini"
    path.write_text("")
    path.chmod(0o666)

    with pytest.raises(BadSetting, match="chmod go-w"):
        read_policy(path)
    assert read_policy(tmp_path / "absent.ini") == Policy()


def test_interpreters_of_scripts() -> None:
    """The first line, blanks made one; /bin/sh without one."""
    assert interpreter_of("echo") == "/bin/sh"
    assert interpreter_of("#! /usr/bin/env   bash\nx") == "/usr/bin/env bash"


def test_outputs_are_found_beneath_the_root_only(tmp_path: Path) -> None:
    """Globs enter folders and no links; hidden files need a dot in the pattern."""
    work = tmp_path / "work"
    (work / "a" / "b").mkdir(parents=True)
    (work / "a" / "b" / "x.csv").write_text("1")
    (work / "a" / "y.csv").write_text("22")
    (work / "a" / ".hidden.csv").write_text("3")
    (tmp_path / "outside.csv").write_text("secret")
    (work / "link").symlink_to(tmp_path)
    (work / "l.csv").symlink_to(tmp_path / "outside.csv")

    found = find_outputs(work, {"ALL": "**/*.csv", "ONE": "a/[xy].csv"})

    names = [(file.output, file.path, file.size) for file in found]
    assert names == [("ALL", "a/b/x.csv", 1), ("ALL", "a/y.csv", 2), ("ONE", "a/y.csv", 2)]


@pytest.mark.parametrize(
    "pattern",
    ["../outside.csv", "/etc/passwd", "l.csv", "link/outside.csv", "a/../../x", "fifo", ""],
)
def test_outputs_that_lead_elsewhere_are_refused(pattern: str, tmp_path: Path) -> None:
    """Named directly, links, pipes and .. are refused with a sentence, not followed."""
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "outside.csv").write_text("secret")
    (work / "l.csv").symlink_to(tmp_path / "outside.csv")
    (work / "link").symlink_to(tmp_path)
    os.mkfifo(work / "fifo")

    with pytest.raises(OutputProblem):
        find_outputs(work, {"R": pattern})


def test_a_link_that_is_swapped_in_is_not_followed(tmp_path: Path) -> None:
    """Between the look and the upload a folder becomes a link: the upload refuses."""
    work = tmp_path / "work"
    (work / "d").mkdir(parents=True)
    (work / "d" / "f").write_text("mine")
    (tmp_path / "f").write_text("secret")
    (file,) = find_outputs(work, {"R": "d/f"})
    (work / "d" / "f").unlink()
    (work / "d").rmdir()
    (work / "d").symlink_to(tmp_path)

    with pytest.raises(OutputProblem):
        open_output(work, file.path)


def test_a_sparse_giant_is_refused(tmp_path: Path) -> None:
    """A terabyte of nothing is not read."""
    with (tmp_path / "big").open("wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(OutputProblem, match="sparse"):
        find_outputs(tmp_path, {"R": "big"})


@pytest.mark.parametrize("size", [0, 10, 1000, 1001, 5000])
def test_a_shipped_log_is_a_prefix_while_it_grows(size: int, tmp_path: Path) -> None:
    """What went out while the payload ran is always the beginning of the whole."""
    path = tmp_path / "stdout"
    data = bytes(i % 251 for i in range(size))
    path.write_bytes(data)

    running = LogFile(path, 1000, ended=False)
    ended = LogFile(path, 1000, ended=True)

    early = running.read(0, running.total())
    whole = b"".join(ended.read(at, 97) for at in range(0, ended.total(), 97))
    assert whole.startswith(early)
    assert len(whole) == ended.total()
    if size <= 1000:
        assert whole == data
    else:
        assert whole[:500] == data[:500]
        assert whole.endswith(data[-500:])
        assert f"{size - 1000} bytes left out".encode() in whole


def test_trimming_gives_blocks_back_and_keeps_both_ends(tmp_path: Path) -> None:
    """The middle of a long log costs no disk; what is shipped stays the same."""
    path = tmp_path / "stdout"
    path.write_bytes(bytes(range(256)) * 4096 * 8)
    before = LogFile(path, 1 << 20, ended=True)
    shipped = before.read(0, before.total())

    trim_log(path, 1 << 20)

    assert path.stat().st_size == 8 << 20
    assert path.stat().st_blocks * 512 <= (1 << 20) + 8192
    assert before.read(0, before.total()) == shipped


def test_back_off_has_full_jitter_between_its_bounds() -> None:
    """The bound doubles from 1 s to 60 s; what the server asks for is the least."""
    backoff = BackOff(random.Random(1))
    waits = [backoff.next_s() for _ in range(200)]

    assert waits[0] <= 1.0
    assert max(waits) <= 60.0
    assert max(waits[10:]) > 40.0
    assert min(waits[10:]) < 10.0
    assert 5.0 <= backoff.next_s(5.0) <= 6.0


def test_what_is_tried_again() -> None:
    """Overload and faults of the server; never a refusal."""
    assert [s for s in (400, 401, 403, 404, 409, 413, 422, 429, 500, 502, 503) if may_retry(s)] == [
        429, 500, 502, 503,
    ]  # fmt: skip
    assert retry_after_s("7", 0.0) == 7.0
    assert retry_after_s("Thu, 01 Jan 1970 00:00:10 GMT", 4.0) == 6.0
    assert retry_after_s("soon", 0.0) is None


def test_frames_come_out_as_they_went_in() -> None:
    """Cut anywhere, the messages are whole; a length that cannot be ours is an error."""
    data = frame({"a": 1}) + frame({"b": "ü" * 50})
    reader = FrameReader()

    found = [message for i in range(len(data)) for message in reader.feed(data[i : i + 1])]

    assert found == [{"a": 1}, {"b": "ü" * 50}]
    with pytest.raises(ValueError, match="not one of ours"):
        list(FrameReader().feed(b"\xff\xff\xff\xff"))


def test_lease_names_are_safe_as_folders() -> None:
    """Nothing but the protocol's own form becomes a path."""
    assert is_lease_name("018f3c2e-1111-7abc-8def-0123456789ab.1." + "a" * 32)
    for text in (
        "../x.1." + "a" * 32,
        "a/b.1." + "a" * 32,
        "x.1." + "A" * 32,
        "",
        None,
        "x.1.aa\n",
    ):
        assert not is_lease_name(text)


def test_removing_a_folder_follows_no_link(tmp_path: Path) -> None:
    """Links are removed, not what they point to; directories without permissions go too."""
    places = Places(tmp_path / "work")
    lease = "t.1." + "0" * 32
    folder = places.make(lease)
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "file").write_text("mine")
    (folder / "work" / "link").symlink_to(keep)
    (folder / "work" / "closed").mkdir()
    (folder / "work" / "closed" / "f").write_text("x")
    (folder / "work" / "closed").chmod(0)

    places.remove(lease)

    assert not folder.exists()
    assert (keep / "file").read_text() == "mine"


def test_kept_folders_go_when_their_time_is_over(tmp_path: Path) -> None:
    """Held ones and foreign names stay."""
    places = Places(tmp_path)
    old, held, young = (f"t{n}.1.{n:032x}" for n in range(3))
    for lease, seconds in ((old, -1.0), (held, -1.0), (young, 3600.0)):
        places.make(lease)
        places.keep(lease, seconds)
    (tmp_path / "somebody-elses").mkdir()

    assert places.sweep({held}) == 1

    assert sorted(path.name for path in tmp_path.iterdir()) == ["somebody-elses", held, young]


def test_gpus_are_given_out_once(tmp_path: Path) -> None:
    """CUDA_VISIBLE_DEVICES names the reserved ones; a task without GPUs sees none."""
    book = LeaseBook(Capacity(8, 1000, ("0", "1", "2")))
    first, second, third, plain = (_held(n, gpu=g) for n, g in ((1, 2), (2, 2), (3, 1), (4, 0)))
    for held in (first, second, third, plain):
        book.add(held)

    taken = book.take_ready()

    assert taken == [first, third, plain]
    assert (first.gpus, third.gpus) == (("0", "1"), ("2",))
    seen = [payload_environment(h, tmp_path, {})["CUDA_VISIBLE_DEVICES"] for h in taken]
    assert seen == ["0,1", "2", ""]
    book.free_share(first)
    assert book.take_ready() == [second]


def test_the_digest_is_that_of_the_held_leases() -> None:
    """Count and exclusive or, whatever came and went."""
    book = LeaseBook(Capacity(8, 1000, ()))
    for number in (5, 6, 7):
        book.add(_held(number))
    book.add(_held(6))

    book.drop(_held(7).lease)

    assert book.digest() == {"count": 2, "xor": f"{5 ^ 6:032x}"}


def test_environment_variables_cannot_smuggle(tmp_path: Path) -> None:
    """Malformed names are refused; with restricted interpreters so is code by variable."""
    evil = _held(environment={"BASH_ENV": "/tmp/x"})
    bad = _held(environment={"A=B": "1"})
    nul = _held(environment={"A": "x\0y"})
    strict = Policy(interpreters=("/bin/sh",))

    assert environment_refusal(evil, Policy()) is None
    assert "BASH_ENV" in str(environment_refusal(evil, strict))
    assert "malformed" in str(environment_refusal(bad, Policy()))
    assert "malformed" in str(environment_refusal(nul, Policy()))


def test_a_specs_environment_is_expanded_at_the_site(tmp_path: Path) -> None:
    """$HOME is this machine's; a parameter's value is never expanded."""
    held = _held(environment={"CACHE": "$HOME/cache", "X": "${CACHE}/x"})
    held.offer["environment"] = {"P": "$HOME"}

    found = payload_environment(held, tmp_path, {"HOME": "/home/me"})

    assert (found["CACHE"], found["X"], found["P"]) == (
        "/home/me/cache",
        "/home/me/cache/x",
        "$HOME",
    )
    assert found["AIRAVATA_INDEX"] == "3"
