"""The agent at work: builds the parts, starts the loops, waits for the end.

Order of a start: journal, book, shepherd, recovery (all without network: payloads are followed even
while the API is away), then the session, then claims.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from typing import Any

from airavata_scheduler.agent import epochs, processes
from airavata_scheduler.agent.api import Api
from airavata_scheduler.agent.claims import Claims
from airavata_scheduler.agent.faults import AgentFault, BadSetting, Exit, Refused, Revoked
from airavata_scheduler.agent.history import History
from airavata_scheduler.agent.inputs import InputCache
from airavata_scheduler.agent.journal import Journal
from airavata_scheduler.agent.lease_book import LAUNCHING, READY, RUNNING, WAITING, LeaseBook
from airavata_scheduler.agent.loop import Loop
from airavata_scheduler.agent.loop_claim import ClaimLoop
from airavata_scheduler.agent.loop_control import ControlLoop
from airavata_scheduler.agent.loop_fetch import FetchLoop
from airavata_scheduler.agent.loop_finish import Finisher, QuickFinishLoop, SlowFinishLoop
from airavata_scheduler.agent.loop_gate import GateLoop
from airavata_scheduler.agent.loop_heartbeat import Beat, HeartbeatLoop
from airavata_scheduler.agent.loop_launch import LaunchLoop
from airavata_scheduler.agent.loop_logs import LogLoop
from airavata_scheduler.agent.loop_report import ReportLoop
from airavata_scheduler.agent.loop_stage import LOOPS as STAGE_LOOPS
from airavata_scheduler.agent.loop_stage import StageLoop, Staging
from airavata_scheduler.agent.loop_watch import WatchLoop
from airavata_scheduler.agent.machine import capacity
from airavata_scheduler.agent.modes import Modes, is_crash_loop
from airavata_scheduler.agent.oplog import OpLog
from airavata_scheduler.agent.payload_order import base_environment
from airavata_scheduler.agent.places import Places
from airavata_scheduler.agent.policy import Policy, read_policy
from airavata_scheduler.agent.pool import Pool
from airavata_scheduler.agent.recovery import Recovery
from airavata_scheduler.agent.reports import Reports
from airavata_scheduler.agent.rotation import Rotation
from airavata_scheduler.agent.session import Timers, open_session
from airavata_scheduler.agent.settings import Settings
from airavata_scheduler.agent.shepherd_client import ShepherdClient
from airavata_scheduler.agent.state_folder import Identity, StateFolder
from airavata_scheduler.agent.stopper import Stopper
from airavata_scheduler.agent.tidy import TidyLoop
from airavata_scheduler.agent.transport import Transport
from airavata_scheduler.agent.version import VERSION

Json = dict[str, Any]
_STOP_S = 5.0
_ROOM_S = 1.0
_SAID_FOR_S = 60.0


class Runtime:
    """Everything that the loops share."""

    def __init__(
        self, settings: Settings, folder: StateFolder, identity: Identity, log: OpLog
    ) -> None:
        """Build all parts and recover what ran before; no network yet."""
        self.settings = settings
        self.folder = folder
        self.identity = identity
        self.log = log
        self.stop = threading.Event()
        self._main_r, self._main_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.scripts_run = threading.Event()
        self.ending: AgentFault | None = None
        self.signals = 0
        self.hung_up = False
        self._was_full_at = float("-inf")
        self.started_at = time.time()
        self.boot_id = processes.boot_id()
        self.history = History(settings.history_dir, "agent")
        self.history.note("agent", agent=identity.agent_id, boot=self.boot_id)
        self.epoch = ""
        self.timers = Timers()
        self.compute: Json = {}
        self.policy: Policy = read_policy(settings.policy_file)
        self.base_environment = base_environment(settings.environment, self.policy)
        self.places = Places(settings.work_root)
        self.modes = Modes(settings.work_root, folder.path)
        self._open_journal()
        if is_crash_loop(self.journal.state.starts, time.time()):
            self.modes.enter_safe_mode()
        self.book = LeaseBook(capacity(self.policy))
        log.hide(identity.secret)
        transport = Transport(settings.api_url, ca_bundle=settings.ca_bundle, version=VERSION)
        self.api = Api(transport, log, self.stop)
        self.rotation = Rotation(self)
        self.api.use_identity(identity.agent_id, self.rotation.secrets)
        self.shepherd = ShepherdClient(folder.path)
        self.api.renew_session = self.renew_session
        self._opening = threading.Lock()
        self._make_parts()
        self.recovery = Recovery(self)

    def _open_journal(self) -> None:
        folder = self.folder
        self.journal = Journal(folder.path / "journal", room_comes=self._room_comes)
        for text in self.journal.damage:
            self.log.error(f"the journal cannot be read whole or is old: {text}")
        start = {"boot": self.boot_id, "at": time.time(), "place": folder.place}
        self.journal.commit({"t": "boot", **start})

    def _room_comes(self) -> bool:
        """Wait a moment for room in the state folder; False where the agent ends instead."""
        now = time.monotonic()
        if now - self._was_full_at > _SAID_FOR_S:
            self.log.error(
                f"the disk of {self.folder.path} is full: what runs goes on, nothing is started or "
                "reported until there is room. Free some space there"
            )
        self._was_full_at = now
        return not self.stop.wait(_ROOM_S)

    def _make_parts(self) -> None:
        self.beat = Beat()
        self.claims = Claims(self)
        self.reports = Reports(self)
        self.finisher = Finisher(self)
        self.stopper = Stopper(self)
        self.inputs = InputCache(self, self.folder.path / "cache")
        self.tidy = TidyLoop(self)
        self.pool = Pool(self)
        self.book.on_room = self.pool.room_came
        self.fetcher = FetchLoop(self)
        self.staging = Staging()
        self.watch = WatchLoop(self)
        self.claim_loop = ClaimLoop(self)
        self._local: list[Loop] = [
            ControlLoop(self),
            self.watch,
            self.pool,
            QuickFinishLoop(self),
            LaunchLoop(self),
            self.tidy,
        ]
        self._networked: list[Loop] = [
            self.fetcher,
            *(SlowFinishLoop(self, number) for number in (1, 2, 3)),
            GateLoop(self),
            *(StageLoop(self, number + 1) for number in range(STAGE_LOOPS)),
            LogLoop(self),
            ReportLoop(self),
            HeartbeatLoop(self),
            self.claim_loop,
        ]

    def run(self) -> Exit:
        """Work until told to end; the exit code."""
        self._hear_signals()
        self.recovery.run()
        if self.recovery.adopted:
            self.log.info(f"adopted {self.recovery.adopted} payloads that run already")
        if self.recovery.dropped:
            self.log.error(
                f"the state folder may be a copy or older than what happened: "
                f"{self.recovery.dropped} tasks that neither ended nor run here are given back"
            )
        if self.modes.safe:
            self.log.error(
                "died 4 times in 10 minutes: safe mode. What runs is finished and reported, no new "
                "work is taken for 10 minutes. Look at the log above, or run `resume` before."
            )
        for loop in [*self._local, *self._networked]:
            loop.start()
        opener = threading.Thread(target=self._open, name="session", daemon=True)
        opener.start()
        while not self.stop.is_set():
            # A waiting Event does not return for a signal, a select on the wake-up pipe does.
            select.select([self._main_r], [], [], 0.25 if self.modes.draining else None)
            with contextlib.suppress(BlockingIOError):
                os.read(self._main_r, 512)
            self._heed()
        self._shut_down()
        return self._exit_code()

    def end(self, fault: AgentFault | None) -> None:
        """The agent ends; the first reason counts."""
        if self.ending is None:
            self.ending = fault
        self.stop.set()
        self.wake_main()

    def drain(self) -> None:
        """Finish what runs, give back what has not started, take nothing more, then end."""
        if not self.modes.draining:
            self.modes.draining = True
            self.log.info("draining: running tasks are finished, nothing new is taken")
            threading.Thread(target=self._give_back, name="give-back", daemon=True).start()
            self.beat.soon()
            self.wake_main()

    def wake_main(self) -> None:
        """Make the main thread look at the modes."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._main_w, b".")

    def attend(self, answer: Json) -> None:
        """What any answer may carry: a new epoch, a wish for attention."""
        epoch = str(answer.get("epoch") or "")
        if epoch and epoch != self.epoch:
            epochs.enter(self, epoch)
            self.beat.soon(full=True)
        if answer.get("attention"):
            self.beat.soon()

    def obey_agent_orders(self, orders: Json) -> None:
        """What the server wants of the agent as a whole."""
        before = self.modes.paused_by_server
        self.modes.paused_by_server = bool(orders.get("pause"))
        if before and not self.modes.paused_by_server:
            self.claim_loop.make_room_known()
        self._obey_drain(bool(orders.get("drain")))
        self._note_age(bool(orders.get("upgrade")))
        level = orders.get("log_level")
        if level in ("debug", "info", "warning", "error"):
            self.log.level = level
        if orders.get("rotate") or self.rotation.is_due():
            self.rotation.start()

    def _note_age(self, is_too_old: bool) -> None:
        """An agent that is too old finishes what it has; the upgrade is its owner's."""
        if is_too_old and not self.modes.too_old:
            self.log.warning(
                f"version {VERSION} is too old for the server: running tasks are finished, nothing "
                "new is taken; run `upgrade`, or install the agent again"
            )
        self.modes.too_old = is_too_old

    def _obey_drain(self, wanted: bool) -> None:
        """The server's drain keeps the agent connected, so that the server's resume reaches it."""
        if wanted == self.modes.drained_by_server:
            return
        self.modes.drained_by_server = wanted
        self.beat.soon()
        if wanted:
            self.log.info("drained by the server: running tasks are finished, nothing new is taken")
            threading.Thread(target=self._give_back, name="give-back", daemon=True).start()
        else:
            self.log.info("the server resumes this agent: work is taken again")
            self.claim_loop.make_room_known()
            self.book.nudge()

    def reload_policy(self) -> None:
        """Read the policy file again; a malformed one changes nothing."""
        try:
            self.policy = read_policy(self.settings.policy_file)
        except BadSetting as problem:
            self.log.error(f"the old policy stays: {problem}")
            return
        self.base_environment = base_environment(self.settings.environment, self.policy)
        self.book.capacity = capacity(self.policy)
        self.log.info("policy read again")

    def crash_point(self, name: str) -> None:
        """Die here if a test asked for it: AIRAVATA_AGENT_CRASH names the point."""
        if self.settings.environment.get("AIRAVATA_AGENT_CRASH") == name:
            os.kill(os.getpid(), signal.SIGKILL)

    def renew_session(self, ended: str) -> None:
        """Open a new session where `ended` is still the present one; whoever comes later waits."""
        with self._opening:
            if self.api.session_id != ended or self.stop.is_set():
                return
            if ended:
                self.log.warning("the session ended on the server; a new one is opened")
            try:
                open_session(self)
            except AgentFault as fault:
                if not self.stop.is_set():
                    self.end(fault)

    def _open(self) -> None:
        self.renew_session("")
        if self.stop.is_set():
            return
        self.log.info(
            f"connected to {self.settings.api_url} as {self.identity.name}, "
            f"compute {self.identity.compute}"
        )
        self.beat.plan(0.0 if len(self.book) else self.timers.heartbeat_s)

    def _hear_signals(self) -> None:
        def count(_number: int, _frame: object) -> None:
            self.signals += 1

        def hang_up(_number: int, _frame: object) -> None:
            self.hung_up = True

        signal.set_wakeup_fd(self._main_w, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, count)
        signal.signal(signal.SIGINT, count)
        signal.signal(signal.SIGHUP, hang_up)

    def _heed(self) -> None:
        """Signals and the end of draining; on the main thread."""
        if self.hung_up:
            self.hung_up = False
            self.reload_policy()
        if self.signals == 1:
            self.drain()
        elif self.signals > 1:
            self.log.info("stopping now: payloads go on and are adopted at the next start")
            self.end(None)
        if self.modes.draining and not len(self.book):
            self.log.info("drained")
            self.end(None)

    def _give_back(self) -> None:
        """Unstarted leases go back; they cost no attempt."""
        with self.book.changed:
            unstarted = self.book.in_phase(WAITING, READY)
            for held in unstarted:
                held.reason = "released"
                self.book.withdraw(held, LAUNCHING)
        if not unstarted:
            return
        try:
            self.api.post(
                "/leases/release",
                {"leases": [held.lease for held in unstarted], "reason": "draining"},
                tries=3,
            )
        except AgentFault as problem:
            self.log.warning(f"unstarted leases could not be given back: {problem}")
        # What the server did not hear of it learns from the next session's list.
        self.journal.append({"t": "dropped", "leases": [held.lease for held in unstarted]})
        for held in unstarted:
            self.book.drop(held.lease)

    def _shut_down(self) -> None:
        self.log.info("stopping")
        loops = [*self._networked, *self._local]
        for loop in loops:
            loop.wake()
        deadline = time.monotonic() + _STOP_S
        for loop in loops:
            loop.join(max(0.0, deadline - time.monotonic()))
        if isinstance(self.ending, Revoked):
            self._after_revocation()
        elif self.api.session_id and self.ending is None:
            self._end_session()
        self.pool.retire_idle()
        if self.ending is None:
            self.journal.commit({"t": "stopped"})
        self.journal.close()
        # Payloads that run are taken over by the next agent, through the shepherd that is there.
        self.shepherd.close(retire=not self.book.in_phase(LAUNCHING, RUNNING))

    def _end_session(self) -> None:
        self.stop.clear()
        try:
            reason = "drained" if self.modes.draining else "stopped"
            self.api.post("/session/end", {"reason": reason}, tries=1, timeout_s=5.0)
        except AgentFault as problem:
            self.log.debug(f"the session's end could not be told: {problem}")
        finally:
            self.stop.set()

    def _after_revocation(self) -> None:
        """Payloads stop and the secret goes: a revoked agent keeps nothing."""
        for held in self.book.in_phase(LAUNCHING, RUNNING):
            if not held.is_python:
                self.stopper.stop_payload(held)
        for worker in list(self.pool.workers.values()):
            worker.kill()
        self.folder.wipe_identity()

    def _exit_code(self) -> Exit:
        if self.ending is None:
            return Exit.DONE
        self.log.error(f"the agent ends: {self.ending}")
        if isinstance(self.ending, Refused) and self.ending.status in (401, 403):
            return Exit.NOT_ALLOWED
        return Exit(self.ending.exit_code)
