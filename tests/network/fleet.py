"""Agents of one deployment, each on a host of its own behind a proxy that may lose requests."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from tests.acceptance.system import BIN
from tests.campaign import outcome
from tests.campaign.notes import Notes, now
from tests.campaign.record import Record, read
from tests.campaign.site import Site, agent_environment
from tests.lossy_proxy import LossyProxy
from tests.network.host import NetHost, net_host


@dataclass(kw_only=True)
class Away:
    """One agent, its host, and the proxy that all its requests go through."""

    name: str
    host: NetHost
    proxy: LossyProxy
    process: subprocess.Popen[bytes]
    agent_id: str = ""

    def end(self) -> None:
        """Stop it; payloads that run are the deployment's to end."""
        for _ in range(2):
            self.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait()


class Line:
    """Notes what is done to an agent's line, as the judge wants to know it."""

    def __init__(self, site: Site) -> None:
        self._note = Notes(site.histories, "network")

    @contextmanager
    def broken(self, away: Away, fault: str) -> Iterator[None]:
        """The fault for the block."""
        began = now()
        away.host.break_line(fault)
        try:
            yield
        finally:
            away.host.mend_line()
            self._note("fault", t=began, what=away.agent_id, kind=fault, until=now())


@contextmanager
def fleet(site: Site, names: Sequence[str]) -> Iterator[list[Away]]:
    """So many agents, enrolled and approved."""
    with ExitStack() as stack:
        made = []
        for name in names:
            host = stack.enter_context(net_host())
            proxy = LossyProxy(target=site.deployment.url, host=host.near)
            stack.enter_context(proxy.running())
            away = Away(name=name, host=host, proxy=proxy, process=_start(site, name, host, proxy))
            stack.callback(away.end)
            site.deployment.approve(name)
            site.deployment.wait_for_worker(name)
            made.append(away)
        ids = {agent["name"]: agent["id"] for agent in agents(site)}
        for away in made:
            away.agent_id = ids[away.name]
        yield made


def agents(site: Site) -> list[dict[str, Any]]:
    """The agents as `airavata agent list` shows them."""
    found: list[dict[str, Any]] = site.deployment.answer("agent", "list")["items"]
    return found


def ended(site: Site, with_outputs: set[str]) -> Record:
    """The record of what happened, once everything has come to rest."""
    outcome.note_all(Notes(site.histories, "outcome"), with_outputs)
    return read(site.histories, site.ledger)


def _start(site: Site, name: str, host: NetHost, proxy: LossyProxy) -> subprocess.Popen[bytes]:
    environment = agent_environment(site.deployment, site.folder, name)
    with site.deployment.output("worker").open("ab") as log:
        return subprocess.Popen(
            [*host.command(), str(BIN / "airavata-scheduler"), "worker"],
            env=environment | {"API_URL": proxy.address},
            cwd=site.deployment.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
