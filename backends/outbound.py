"""The one guard for connections to an address that a user's input names.

targets.py reads the text. `Outbound.connect` resolves its name once, drops every address that may
not be reached (addresses.py), and connects to one that is left: what was judged is what is
connected to, so a name that changes its address in between changes nothing. All connections of one
`Outbound` are shut at its deadline, whatever the other end does. Nothing here follows a redirect or
looks for a proxy.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from airavata_scheduler.backends.addresses import Allowed, why_refused
from airavata_scheduler.models.errors import BadInput

TEST_S = 10.0

Resolver = Callable[[str, int], Sequence[str]]


class OutboundRefused(BadInput):
    """The scheduler does not connect to this address."""

    code = "outbound_refused"


class Unreachable(Exception):
    """The other end could not be reached: a name without address, nobody there, too late."""


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """A target whose addresses were looked up once and may be connected to.

    `host` is the name to prove by TLS; `listed` says that OUTBOUND_ALLOW names it.
    """

    host: str
    port: int
    addresses: tuple[str, ...]
    listed: bool

    @property
    def address(self) -> str:
        """The first of the addresses."""
        return self.addresses[0]


def system_addresses(host: str, port: int) -> list[str]:
    """What the system's resolver says, in its order."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class Outbound:
    """The connections of one conversation: each judged, pinned, and shut at the deadline.

    A context manager. `allow` are the entries of OUTBOUND_ALLOW.
    """

    def __init__(
        self,
        allow: Sequence[str] = (),
        *,
        seconds: float = TEST_S,
        resolve: Resolver = system_addresses,
    ) -> None:
        self._allowed = Allowed.of(allow)
        self._resolve = resolve
        self._end = time.monotonic() + seconds
        self._handles: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._shut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        self._shut()

    @property
    def remaining_s(self) -> float:
        """How long the conversation may still take."""
        return max(self._end - time.monotonic(), 0.001)

    @property
    def is_over(self) -> bool:
        """Whether the deadline has passed."""
        return time.monotonic() >= self._end

    def pin(self, host: str, port: int, field: str = "target") -> Pinned:
        """The addresses of `host` that may be connected to.

        Raises OutboundRefused where there is none, Unreachable where the name has no address.
        """
        found = [
            ipaddress.ip_address(text) for text in self._looked_up(host, port) if "%" not in text
        ]
        faults = {address: why_refused(address, host, self._allowed) for address in found}
        good = [address for address, fault in faults.items() if fault is None]
        if not good:
            address, fault = next(iter(faults.items()), (host, "has no address to connect to"))
            named = str(address) if str(address) == host else f"{host} ({address})"
            raise OutboundRefused(
                f"{named} {fault}.",
                field=field,
                hint="Name another host; or the operator adds this one to OUTBOUND_ALLOW, where it "
                "is private and meant to be reached.",
            )
        return Pinned(
            host=host,
            port=port,
            addresses=tuple(str(address) for address in good),
            listed=all(self._allowed.names(host, address) for address in good),
        )

    def _looked_up(self, host: str, port: int) -> Sequence[str]:
        """The resolver has no time limit of its own: it is left behind when ours has passed."""
        with contextlib.suppress(ValueError):
            return [str(ipaddress.ip_address(host))]
        answers: queue.Queue[Sequence[str] | OSError | UnicodeError] = queue.Queue()

        def ask() -> None:
            try:
                answers.put(self._resolve(host, port))
            except (OSError, UnicodeError) as error:
                answers.put(error)

        threading.Thread(target=ask, daemon=True, name="resolve").start()
        try:
            answer = answers.get(timeout=self.remaining_s)
        except queue.Empty:
            raise Unreachable(f"the name {host} was not resolved in time") from None
        if isinstance(answer, OSError | UnicodeError):
            raise Unreachable(f"the name {host} has no address")
        return answer

    def connect(self, host: str, port: int) -> socket.socket:
        """A TCP connection to the host, by an address that may be connected to.

        Raises OutboundRefused or Unreachable.
        """
        return self.connect_pinned(self.pin(host, port))

    def connect_pinned(self, pinned: Pinned) -> socket.socket:
        """A TCP connection to one of the pinned addresses. Raises Unreachable."""
        why = "nobody answers"
        for address in pinned.addresses:
            try:
                connected = socket.create_connection(
                    (address, pinned.port), timeout=self.remaining_s
                )
            except ConnectionRefusedError:
                why = "the port is closed"
            except OSError:
                continue
            else:
                self._watch(connected)
                return connected
        raise Unreachable(f"{pinned.host} port {pinned.port}: {why}")

    def _watch(self, connected: socket.socket) -> None:
        """Keep a second handle: the first one is gone once TLS is spoken over it."""
        with self._lock:
            self._handles.append(socket.socket(fileno=os.dup(connected.fileno())))
        if self.is_over:
            self._shut()

    def _shut(self) -> None:
        with self._lock:
            handles, self._handles = self._handles, []
        for handle in handles:
            with contextlib.suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)
            handle.close()
