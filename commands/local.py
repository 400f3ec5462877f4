"""`airavata-scheduler local`: the whole system on one machine, supervised, without root."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from airavata_scheduler.backends.certificates import ensure_private_authority
from airavata_scheduler.commands import local_rows
from airavata_scheduler.commands.both import verb_command
from airavata_scheduler.commands.local_addresses import Addresses, choose_addresses
from airavata_scheduler.commands.local_children import children
from airavata_scheduler.commands.local_home import LocalHome
from airavata_scheduler.commands.processes import (
    ChildFailedError,
    RunningChild,
    Supervisor,
    process_start_ticks,
    terminate,
)
from airavata_scheduler.models.errors import AiravataError, ConfigurationError

READY_WITHIN_S = 90.0
_LOG_TAIL_LINES = 5


@click.command("local")
@click.option("--port", type=click.IntRange(0, 65535), default=None, help="0 picks a free one.")
@click.option("--detach", is_flag=True, help="Return once the system is ready.")
@click.option("--stop", "stop_it", is_flag=True, help="Stop the system of this AIRAVATA_HOME.")
@click.option("--status", "show_status", is_flag=True, help="List every child.")
@click.option("--json", "as_json", is_flag=True, help="With --status: print JSON.")
def command(
    port: int | None, detach: bool, stop_it: bool, show_status: bool, as_json: bool
) -> None:
    """Run the whole system on this machine: its servers, API, daemon and one agent.

    Everything lives in $AIRAVATA_HOME (default ~/.airavata) and is stopped by ^C. Logs are in
    its folder logs/.
    """
    home = LocalHome.from_environment()
    if stop_it:
        _stop(home)
    elif show_status:
        _show_status(home, as_json)
    elif detach:
        _start_detached(home, port)
    else:
        _run(home, port)


def _run(home: LocalHome, port: int | None) -> None:
    home.lay_out()
    lock = home.lock()
    if lock is None:
        click.echo("It is already running, in another terminal or detached.")
        _say_already_running(home)
        return
    with lock:
        _end_orphans(home)
        click.echo(f"Starting Airavata Scheduler in {home.root} …", err=True)
        addresses = choose_addresses(port, home.read_status())
        ensure_private_authority(home.tls, ["localhost", "127.0.0.1", socket.gethostname()])
        local_rows.prepare(home, addresses)
        supervisor = Supervisor(
            children=children(home, addresses, local_rows.agent_is_online),
            on_change=lambda running: home.write_status(_status(addresses, running)),
            on_restart=lambda child, why: click.echo(
                f"{child.name} {why}; it is started again. Its log: {child.log}", err=True
            ),
        )
        try:
            supervisor.start()
        except ChildFailedError as error:
            raise ConfigurationError(
                f"{error}.", hint=_log_tail(error.child.log) or f"See {error.child.log}"
            ) from error
        click.echo(_welcome(home, addresses.url))
        supervisor.run()
        click.echo("Stopped. Tasks that were running go on; the next start takes them up.")


def _log_tail(log: Path | None) -> str:
    """The last lines that a child wrote: they say why it did not start."""
    if log is None or not log.is_file():
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:]
    return "\n".join([*lines, f"The whole log: {log}"])


def _status(addresses: Addresses, running: list[RunningChild]) -> dict[str, Any]:
    ready = all(entry.state == "running" for entry in running)
    return {
        "url": addresses.url,
        "agents_url": addresses.agents_url,
        "pid": os.getpid(),
        "start_ticks": process_start_ticks(os.getpid()),
        "state": "running" if ready else "starting",
        "children": [
            {
                "name": entry.child.name,
                "pid": entry.process.pid if entry.process else None,
                "start_ticks": process_start_ticks(entry.process.pid) if entry.process else None,
                "port": entry.child.port,
                "state": entry.state,
                "log": str(entry.child.log),
            }
            for entry in running
        ],
    }


def _is_alive(record: dict[str, Any]) -> bool:
    pid, ticks = record.get("pid"), record.get("start_ticks")
    return pid is not None and ticks is not None and process_start_ticks(pid) == ticks


def _end_orphans(home: LocalHome) -> None:
    """End children that a killed supervisor left behind, so that new ones can take their place."""
    status = home.read_status()
    for child in reversed(status["children"] if status else []):
        if _is_alive(child):
            click.echo(f"Ending {child['name']} of an earlier start …", err=True)
            terminate(child["pid"], child["start_ticks"])


def _stop(home: LocalHome) -> None:
    status = home.read_status()
    if status is None or not (
        _is_alive(status) or any(_is_alive(child) for child in status["children"])
    ):
        click.echo("It is not running.")
        return
    if _is_alive(status):
        terminate(status["pid"], status["start_ticks"], grace_s=READY_WITHIN_S)
    _end_orphans(home)
    click.echo("Stopped. Tasks that were running go on; the next start takes them up.")


def _show_status(home: LocalHome, as_json: bool) -> None:
    status = home.read_status()
    if status is None:
        raise ConfigurationError(
            f"Nothing was ever started in {home.root}.", hint="Start it: airavata-scheduler local"
        )
    supervised = _is_alive(status)
    for child in status["children"]:
        alive = _is_alive(child)
        if not alive:
            child["state"] = "stopped"
        del child["start_ticks"]
    if not supervised:
        status["state"] = "stopped"
    del status["start_ticks"]
    if as_json:
        click.echo(json.dumps(status, indent=2))
    else:
        click.echo(f"{status['state']}  {status['url']}  (supervisor pid {status['pid']})")
        for child in status["children"]:
            place = f"port {child['port']}" if child["port"] else "no port"
            click.echo(
                f"  {child['name']:<11} {child['state']:<10} pid {child['pid']!s:<8} {place:<11} "
                f"{child['log']}"
            )
    sys.exit(0 if supervised else 1)


def _start_detached(home: LocalHome, port: int | None) -> None:
    home.lay_out()
    log = home.log("supervisor")
    arguments = [] if port is None else ["--port", str(port)]
    with log.open("ab") as output:
        before = log.stat().st_size
        supervisor = subprocess.Popen(
            [*verb_command("local"), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        status = home.read_status()
        if status and status["state"] == "running" and _is_alive(status):
            _say_already_running(home)
            return
        if supervisor.poll() not in (None, 0):
            said = log.read_bytes()[before:].decode(errors="replace").strip()
            raise ConfigurationError("It did not start.", hint=said or f"See {log}")
        time.sleep(0.1)
    raise ConfigurationError(f"It was not ready within {READY_WITHIN_S:.0f} s.", hint=f"See {log}")


def _say_already_running(home: LocalHome) -> None:
    status = home.read_status()
    if status is None:
        raise AiravataError(f"Another process holds {home.root}; try again in a moment.")
    click.echo(_welcome(home, status["url"]))


def _welcome(home: LocalHome, url: str) -> str:
    user_command = _shown_command("airavata")
    example = Path(__file__).parents[1] / "examples" / "diffusion.yml"
    shown = os.path.relpath(example) if example.is_file() else "FILE.yml"
    return (
        f"\nAiravata Scheduler is running at {url}\n"
        f"  state and logs: {home.root}   stop: ^C, or "
        f"{_shown_command('airavata-scheduler')} local --stop\n\n"
        f"Type next, in another terminal:\n"
        f"  {user_command} experiment run {shown} --watch\n"
        f"  {user_command} experiment list\n"
        f"  {user_command} agent list\n"
        f"{_path_hint()}"
    )


def _path_hint() -> str:
    """How to type the bare names that hints and examples have, where they are not on the PATH."""
    if shutil.which("airavata") is not None:
        return ""
    return f'To type just airavata:  export PATH="{Path(sys.executable).parent}:$PATH"\n'


def _shown_command(name: str) -> str:
    """How the user can type a command of ours: bare where it is on the PATH."""
    beside = Path(sys.executable).parent / name
    found = shutil.which(name)
    if found is not None and Path(found).resolve() == beside.resolve():
        return name
    relative = os.path.relpath(beside)
    return relative if not relative.startswith("..") else str(beside)
