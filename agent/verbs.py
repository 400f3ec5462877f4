"""The agent's verbs, as its owner types them."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from airavata_scheduler.agent.doctor import examine
from airavata_scheduler.agent.enrolment import enroll, make_api, wait_for_approval
from airavata_scheduler.agent.faults import (
    AgentFault,
    BadSetting,
    Exit,
    NotEnrolled,
    Refused,
    Stopping,
    Unreachable,
)
from airavata_scheduler.agent.framing import FrameReader, connect_socket, frame
from airavata_scheduler.agent.journal_segments import SegmentReader
from airavata_scheduler.agent.journal_state import JournalState
from airavata_scheduler.agent.loop_control import SOCKET
from airavata_scheduler.agent.oplog import OpLog
from airavata_scheduler.agent.policy import read_policy
from airavata_scheduler.agent.runtime import Runtime
from airavata_scheduler.agent.settings import Settings, read_settings
from airavata_scheduler.agent.shepherd import become_shepherd
from airavata_scheduler.agent.state_folder import Identity, StateFolder
from airavata_scheduler.agent.version import VERSION

Json = dict[str, Any]


def run(arguments: list[str] | None = None) -> int:
    """Parse, do, and give the exit code; every expected fault is one sentence on standard error."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["_shepherd"]:
        return become_shepherd(Path(words[1]))
    options = _parser().parse_args(words)
    try:
        settings = _settings(options)
        code: int = options.verb(settings, options)
        return code
    except Stopping:
        return int(Exit.DONE)
    except AgentFault as fault:
        print(f"airavata-agent: {fault} [{fault.code}]", file=sys.stderr)
        return int(fault.exit_code)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # `logs | head`: the reader has enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return int(Exit.DONE)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="airavata-agent",
        description="Runs tasks of an Airavata Scheduler on this machine, as you.",
        epilog="Settings come from the environment: API_URL, WORKER_ID, COMPUTE_ID, OUTPUT_DIR, "
        "POLL_INTERVAL, LOG_LEVEL, AIRAVATA_AGENT_HOME, AIRAVATA_CA_BUNDLE, HTTPS_PROXY. "
        "Tokens are never given as arguments.",
    )
    parser.add_argument("--version", action="version", version=f"airavata-agent {VERSION}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--home", help="the state folder (else AIRAVATA_AGENT_HOME)")
    common.add_argument("--api-url", help="the scheduler's address (else API_URL)")
    common.add_argument("--ca-bundle", help="certificates to trust (else AIRAVATA_CA_BUNDLE)")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    def add(name: str, verb: Callable[..., int], text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, parents=[common], help=text, description=text)
        sub.set_defaults(verb=verb)
        return sub

    one = add("enroll", _enroll, "become an agent; the one-time token is read from standard input")
    one.add_argument("--resource", help="the compute resource (else COMPUTE_ID)")
    one.add_argument("--name", help="this agent's name (else WORKER_ID, else the host's name)")
    one = add("run", _run, "take work and run it, until drained or stopped")
    one.add_argument("--take-over", action="store_true", help="the folder was used on another host")
    one = add("doctor", _doctor, "check this machine and the way to the API")
    one.add_argument("--json", action="store_true")
    one = add("status", _status, "what the agent does now; needs no network")
    one.add_argument("--json", action="store_true")
    add("drain", _tell, "finish what runs, take nothing more, then end").set_defaults(word="drain")
    add("pause", _tell, "take nothing more for now").set_defaults(word="pause")
    add("resume", _tell, "take work again (also after safe mode)").set_defaults(word="resume")
    add("stop", _tell, "end now; running payloads go on and are adopted later").set_defaults(
        word="stop"
    )
    add("rotate", _tell, "make a new secret for this agent").set_defaults(word="rotate")
    one = add("logs", _logs, "show the output of a task that is (or lately was) here")
    one.add_argument("task", help="a lease, a task id, or a name as `status` shows it")
    one.add_argument(
        "--stderr", action="store_true", help="standard error instead of standard output"
    )
    one.add_argument("--follow", action="store_true", help="go on until interrupted")
    add("unenroll", _unenroll, "tell the API that this agent ends for good, and forget its secret")
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    environ = dict(os.environ)
    if options.home:
        environ["AIRAVATA_AGENT_HOME"] = options.home
    if options.ca_bundle:
        environ["AIRAVATA_CA_BUNDLE"] = options.ca_bundle
    if getattr(options, "resource", None):
        environ["COMPUTE_ID"] = options.resource
    if getattr(options, "name", None):
        environ["WORKER_ID"] = options.name
    settings = read_settings(environ, api_url=options.api_url)
    if not settings.api_url:
        # An enrolled agent knows where it belongs.
        with contextlib.suppress(AgentFault, TypeError):
            identity = (
                StateFolder(settings.home).find_identity() if settings.home.is_dir() else None
            )
            if identity is not None:
                return replace(settings, api_url=identity.api_url)
    return settings


def _enroll(settings: Settings, _options: argparse.Namespace) -> int:
    folder = StateFolder(settings.home)
    folder.lock()
    known = folder.find_identity()
    if known is not None:
        raise BadSetting(f"This folder is the agent {known.name} already; `unenroll` ends that.")
    token = settings.token
    if token is None:
        if sys.stdin.isatty():
            print(
                "Enrolment token (it is not shown in any process list): ", end="", file=sys.stderr
            )
            sys.stderr.flush()
        token = sys.stdin.readline().strip() or None
    if token is None:
        raise BadSetting(
            "No token on standard input. Make one with `airavata agent token RESOURCE`, then: "
            "enroll < token-file."
        )
    identity = enroll(settings, folder, OpLog(settings.log_level), token=token, tries=5)
    print(f"enrolled as {identity.name} of compute resource {identity.compute}; now: run")
    return int(Exit.DONE)


def _run(settings: Settings, options: argparse.Namespace) -> int:
    log = OpLog(settings.log_level)
    folder = StateFolder(settings.home)
    folder.lock(take_over=options.take_over)
    make_api(settings, log, threading.Event())
    _check_work_root(settings)
    identity = folder.find_identity()
    if identity is None:
        identity = _first_start(settings, folder, log)
    if identity.state == "pending":
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        signal.signal(signal.SIGINT, lambda *_: stop.set())
        identity = wait_for_approval(settings, folder, log, identity, stop)
    return int(Runtime(settings, folder, identity, log).run())


def _first_start(settings: Settings, folder: StateFolder, log: OpLog) -> Identity:
    if settings.token is None and settings.compute is None:
        raise NotEnrolled(
            f"No identity in {folder.path}. Run `enroll` with a token on standard input, or set "
            "COMPUTE_ID to ask for approval at that compute resource."
        )
    return enroll(settings, folder, log, token=settings.token)


def _check_work_root(settings: Settings) -> None:
    allowed = read_policy(settings.policy_file).paths
    root = Path(os.path.realpath(settings.work_root))
    if allowed and not any(_is_beneath(root, Path(os.path.realpath(path))) for path in allowed):
        raise BadSetting(
            f"The policy file does not allow {settings.work_root} as work folder; set OUTPUT_DIR "
            f"beneath {', '.join(allowed)}."
        )


def _is_beneath(path: Path, root: Path) -> bool:
    return path == root or root in path.parents


def _doctor(settings: Settings, options: argparse.Namespace) -> int:
    checks = []
    for check in examine(settings):
        checks.append(check)
        if not options.json:
            print(check.line(), flush=True)
    if options.json:
        print(json.dumps({"checks": [check.to_json() for check in checks]}, indent=2))
    failed = any(check.result == "fail" for check in checks)
    return int(Exit.FAILED if failed else Exit.DONE)


def _ask(settings: Settings, question: Json) -> Json | None:
    client = connect_socket(settings.home / SOCKET)
    if client is None:
        return None
    reader = FrameReader()
    with client:
        client.settimeout(60.0)
        client.sendall(frame(question))
        while True:
            data = client.recv(1 << 20)
            if not data:
                return {"error": "the agent did not answer; it is ending"}
            for message in reader.feed(data):
                return message


def _status(settings: Settings, options: argparse.Namespace) -> int:
    document = _ask(settings, {"verb": "status"})
    if document is None:
        document = _status_of_folder(settings)
    if options.json:
        print(json.dumps(document, indent=2))
    else:
        print("\n".join(_status_lines(document)))
    return int(Exit.DONE)


def _status_of_folder(settings: Settings) -> Json:
    """What the journal knows while no agent runs."""
    identity = StateFolder(settings.home).find_identity() if settings.home.is_dir() else None
    state = JournalState()
    for path in sorted((settings.home / "journal").glob("[0-9]*.log")):
        for item in SegmentReader(path.read_bytes()):
            state.apply(item)
    reported = sum(entry.report is not None for entry in state.entries.values())
    return {
        "running": False,
        "name": identity.name if identity else None,
        "compute": identity.compute if identity else None,
        "api": settings.api_url or None,
        "version": VERSION,
        "spool": {"results": reported},
        "leases": [
            {"lease": lease, "name": entry.offer.get("name"), "phase": entry.state}
            for lease, entry in state.entries.items()
        ],
    }


def _status_lines(document: Json) -> list[str]:
    name = document.get("name") or "not enrolled"
    place = f" of {document['compute']}" if document.get("compute") else ""
    lines = [f"{name}{place}: {'running' if document['running'] else 'no agent runs'}"]
    if document["running"]:
        work = "takes work" if document["takes_work"] else f"takes no work: {document['why_not']}"
        reached = document["api_answered_s_ago"]
        seen = "has not answered yet" if reached is None else f"answered {reached} s ago"
        lines.append(f"  {work}; {document['api']} {seen}")
        if document["api_trouble"]:
            lines.append(f"  trouble: {document['api_trouble']}")
        free = document["free"]
        lines.append(
            f"  free: {free['cpu']} cores, {free['ram_mb']} MB, {free['gpu']} GPUs, "
            f"{document['disk_free_mb']} MB of disk"
        )
    lines.append(f"  spool: {document['spool']['results']} results wait to be reported")
    lines.append(f"  leases: {len(document['leases'])}")
    lines += [
        f"    {item['phase']:<10} {item['name']}  {item['lease']}"
        for item in document["leases"][:20]
    ]
    return lines


def _tell(settings: Settings, options: argparse.Namespace) -> int:
    answer = _ask(settings, {"verb": options.word})
    if answer is None:
        print("airavata-agent: no agent runs with this state folder", file=sys.stderr)
        return int(Exit.FAILED)
    return _print_answer(answer)


def _print_answer(answer: Json) -> int:
    if "error" in answer:
        print(f"airavata-agent: {answer['error']}", file=sys.stderr)
        return int(Exit.FAILED)
    print(answer["ok"])
    return int(Exit.DONE)


def _logs(settings: Settings, options: argparse.Namespace) -> int:
    stream = "stderr" if options.stderr else "stdout"
    answer = _ask(settings, {"verb": "logs", "lease": options.task, "stream": stream})
    if answer is None:
        answer = {"path": str(settings.work_root / options.task / stream)}
        if "/" in options.task or not (settings.work_root / options.task).is_dir():
            answer = {"error": "no such lease here, and no agent runs; `status` lists leases"}
    if "error" in answer:
        return _print_answer(answer)
    _print_file(Path(answer["path"]), follow=options.follow)
    return int(Exit.DONE)


def _print_file(path: Path, *, follow: bool) -> None:
    position = 0
    while True:
        data = b""
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                file.seek(position)
                data = file.read(1 << 20)
        position += len(data)
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        if not data:
            if not follow:
                return
            time.sleep(0.5)


def _unenroll(settings: Settings, _options: argparse.Namespace) -> int:
    folder = StateFolder(settings.home)
    folder.lock()
    identity = folder.identity()
    log = OpLog(settings.log_level)
    api = make_api(settings, log, threading.Event())
    api.use_identity(
        identity.agent_id, lambda: [s for s in (identity.next_secret, identity.secret) if s]
    )
    try:
        api.post("/unenroll", {}, tries=3)
    except Unreachable as problem:
        raise Unreachable(
            f"{problem} The agent is still enrolled; try again, or revoke it at the scheduler."
        ) from problem
    except Refused as problem:
        log.warning(f"the API does not know this agent any more: {problem}")
    folder.wipe_identity()
    print(f"{identity.name} is not an agent any more; {folder.path} may be removed")
    return int(Exit.DONE)
