"""An executor whose workers are agents at other sites.

    from airavata_scheduler.client.executor import Executor

    with Executor() as executor:
        print(sum(executor.map(pow, range(10), range(10))))

It is a `concurrent.futures.Executor`: `submit`, `map`, `as_completed` and `wait` work as with a
process pool. Calls that are submitted while a request is under way go together in the next one;
results are collected by long polls (`call_collector`), never by a request per call.
"""

from __future__ import annotations

import base64
import concurrent.futures
import functools
import json
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, ParamSpec, TypeVar

from airavata_scheduler.client import bundles
from airavata_scheduler.client.api import Client
from airavata_scheduler.client.api_functions import BATCH_LIMIT
from airavata_scheduler.client.call_collector import CallCollector, CallFuture
from airavata_scheduler.client.collection import without_none
from airavata_scheduler.client.errors import BadInputError

P = ParamSpec("P")
T = TypeVar("T")
# One request's worth of arguments; the server refuses bodies above 16 MiB.
_BATCH_BYTES = 8 * 1024 * 1024


@dataclass(kw_only=True)
class _Waiting:
    """A call that is not sent yet."""

    function: str
    body: Mapping[str, Any]
    size: int
    future: CallFuture[Any]


@dataclass(kw_only=True)
class _Registered:
    """The forms of one function that the server has: in_bundle → name@version."""

    function: Callable[..., Any]
    references: dict[bool, str] = field(default_factory=dict)


class Executor(concurrent.futures.Executor):
    """Runs Python functions on agents.

    `codec` "pickle" carries any Python value both ways, and re-raises the function's own exception.
    Pickles run code when they are opened here, so it trusts the project's agents; "json" trusts
    nobody, and carries JSON values only. `resources` (such as {"cpu": 2, "ram_gb": 4}), `timeout`
    (such as "10m") and `retries` hold for every call; `compute` names where they may run.
    """

    def __init__(
        self,
        client: Client | None = None,
        *,
        project: str | None = None,
        codec: Literal["pickle", "json"] = "pickle",
        compute: str | None = None,
        resources: Mapping[str, Any] | None = None,
        timeout: str | None = None,
        retries: int | None = None,
        priority: int | None = None,
    ) -> None:
        """Connect to nothing yet; the first `submit` sends the function.

        Without a `client` one is made from the settings, and closed by `shutdown`.
        """
        if codec not in ("pickle", "json"):
            raise BadInputError(f"There is no codec “{codec}”; write pickle or json.")
        self._client = client or Client(project=project)
        self._owns_client = client is None
        self._project = project
        self._codec = codec
        self._needs = without_none(
            {
                "resources": dict(resources) if resources else None,
                "retries": retries,
                "timeout": timeout,
            }
        )
        self._priority = priority
        self._compute = compute
        self._functions: dict[int, _Registered] = {}
        self._registering = threading.Lock()
        self._condition = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._sender: threading.Thread | None = None
        self._is_shut_down = False
        self._collector = CallCollector(self._client)

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> concurrent.futures.Future[T]:
        """Run `fn(*args, **kwargs)` on an agent. The first call of a function also sends it.

        Raises `BadInputError` when the function or an argument cannot be sent, and `RuntimeError`
        after `shutdown`.
        """
        if self._is_shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        reference, body, size = self._packed(fn, args, kwargs)
        future: CallFuture[T] = CallFuture(self._collector)
        waiting = _Waiting(function=reference, body=body, size=size, future=future)
        with self._condition:
            if self._is_shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._waiting.append(waiting)
            if self._sender is None:
                self._sender = threading.Thread(
                    target=self._send_all, name="airavata-sender", daemon=True
                )
                self._sender.start()
            self._condition.notify_all()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. `wait` waits for those that run; `cancel_futures` stops them."""
        with self._condition:
            self._is_shut_down = True
            waiting = [entry.future for entry in self._waiting]
            self._condition.notify_all()
        if cancel_futures:
            for future in [*waiting, *self._collector.futures()]:
                future.cancel()
        if not wait:
            return
        if self._sender is not None:
            self._sender.join()
        self._collector.join()
        if self._owns_client:
            self._client.close()

    def _packed(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any], int]:
        """(name@version, the call's body, the size of its arguments in bytes)."""
        while isinstance(function, functools.partial):
            args, kwargs = (*function.args, *args), {**function.keywords, **kwargs}
            function = function.func
        try:
            if self._codec == "json":
                arguments = bundles.named_arguments(function, args, kwargs)
                content = json.dumps(arguments).encode()
            else:
                content = bundles.pack_arguments(args, kwargs, in_bundle=False)
            reference = self._reference(function, in_bundle=False)
        except bundles.NeedsBundleError:
            content = bundles.pack_arguments(args, kwargs, in_bundle=True)
            reference = self._reference(function, in_bundle=True)
        if len(content) > bundles.INLINE_LIMIT_BYTES:
            sha256 = self._client.blobs.put(self._home(), content)
            packed = {"encoding": "blob", "sha256": sha256, "size": len(content)}
            return reference, {"packed": packed}, 200
        if self._codec == "json":
            return reference, {"arguments": arguments}, len(content)
        packed = {"encoding": "pickle", "data": base64.b64encode(content).decode()}
        return reference, {"packed": packed}, len(content) * 4 // 3

    def _reference(self, function: Callable[..., Any], *, in_bundle: bool) -> str:
        """Register the form of `function` that is needed, once; source where that is enough."""
        with self._registering:
            known = self._functions.setdefault(id(function), _Registered(function=function))
            if in_bundle not in known.references:
                source = None if in_bundle else bundles.pack_source(function, self._codec)
                if source is not None:
                    known.references[False] = self._register(function, source)
                else:
                    if True not in known.references:
                        bundle = bundles.pack_bundle(function, self._codec)
                        known.references[True] = self._register(function, bundle)
                    known.references[in_bundle] = known.references[True]
            return known.references[in_bundle]

    def _register(self, function: Callable[..., Any], packed: bundles.Packed) -> str:
        name = function_name(function)
        if packed.blob is not None:
            self._client.blobs.put(self._home(), packed.blob)
        spec: dict[str, Any] = {"kind": "python", "python": dict(packed.python), **self._needs}
        registered = self._client.functions.register(project=self._home(), name=name, spec=spec)
        number = registered.latest_version
        return f"{name}@{number}" if number else registered.id

    def _home(self) -> str:
        return self._project or self._client.project

    def _send_all(self) -> None:
        """The sender's loop: what waits goes out, together; ends with the last after `shutdown`."""
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting or self._is_shut_down)
                if not self._waiting:
                    return
                batch = self._next_batch()
            live = [entry for entry in batch if not self._collector.dropped(entry.future)]
            if not live:
                continue
            try:
                self._send(live)
            except Exception as error:  # noqa: BLE001 - the loop's edge: the waiters must hear of it
                for entry in live:
                    if entry.future.set_running_or_notify_cancel():
                        entry.future.set_exception(error)

    def _send(self, batch: list[_Waiting]) -> None:
        """One request for all of `batch`; their results are collected from then on."""
        identities = self._client.calls.create_batch(
            batch[0].function,
            [entry.body for entry in batch],
            project=self._home(),
            compute=self._compute,
            priority=self._priority,
        )
        calls = zip(identities, batch, strict=True)
        self._collector.add({identity: entry.future for identity, entry in calls})

    def _next_batch(self) -> list[_Waiting]:
        """The calls of the next request: of one function, within the limits; the lock is held."""
        batch = [self._waiting.popleft()]
        size = batch[0].size
        while self._waiting and len(batch) < BATCH_LIMIT:
            entry = self._waiting[0]
            size += entry.size
            if entry.function != batch[0].function or size > _BATCH_BYTES:
                break
            batch.append(self._waiting.popleft())
        return batch


def function_name(function: Callable[..., Any]) -> str:
    """The name under which a callable is registered, such as `estimate-pi`'s own `__name__`."""
    name = getattr(function, "__name__", None) or type(function).__name__
    cleaned = re.sub(r"[^A-Za-z0-9_.-]", "-", str(name)).strip("-._")
    return cleaned[:100] or "function"
