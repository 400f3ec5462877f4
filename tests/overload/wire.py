"""HTTP/1.1 as an agent speaks it, thin enough that thousands of agents fit into one process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from dataclasses import dataclass, field
from typing import Any

FIRST_S, CEILING_S = 1.0, 60.0  # the agent's back-off (agent/backoff.py)


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Its document."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def retry_after_s(self) -> float | None:
        """When the server wants to be asked again."""
        text = self.headers.get("retry-after")
        return None if text is None else float(text)


@dataclass
class Line:
    """One connection that is kept; opened again when it is needed."""

    host: str
    port: int
    timeout_s: float = 20.0
    _reader: asyncio.StreamReader | None = None
    _writer: asyncio.StreamWriter | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Send one request and read its answer. Raises OSError where none comes in time."""
        async with self._lock:
            try:
                return await asyncio.wait_for(
                    self._once(method, path, body, headers or {}), self.timeout_s
                )
            except (asyncio.IncompleteReadError, TimeoutError, ValueError) as error:
                self.close()
                raise ConnectionResetError(f"{method} {path}: {error!r}") from error
            except (OSError, asyncio.CancelledError):
                self.close()
                raise

    async def _once(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Answer:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self.host, self.port)
        assert self._reader is not None
        content = body if isinstance(body, bytes) else b"" if body is None else _json(body)
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}:{self.port}"]
        if body is not None and "Content-Type" not in headers:
            lines.append("Content-Type: application/json")
        lines.append(f"Content-Length: {len(content)}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
        await self._writer.drain()
        return await self._read(self._reader)

    async def _read(self, reader: asyncio.StreamReader) -> Answer:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in head[1:] if line)
        headers = {name.lower(): value for name, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(int(head[0].split()[1]), headers, body)

    def close(self) -> None:
        """Drop the connection."""
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()
        self._reader = self._writer = None


def _json(body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


async def back_off(dice: random.Random, tries: int, asked_s: float | None) -> None:
    """Wait as agents do: full jitter from 1 to 60 s, or what the server asked for."""
    bound_s = min(CEILING_S, FIRST_S * 2**tries)
    own_s = dice.uniform(0.05, bound_s)
    await asyncio.sleep(own_s if asked_s is None else asked_s + dice.uniform(0.0, FIRST_S))
