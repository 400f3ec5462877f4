"""Families 51 to 53, 56 and 57 through the real gunicorn, byte by byte: what HTTP itself allows.

Whatever comes, the server answers 4xx or closes the connection, does nothing by halves, and serves
the next one.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.integration.test_functions_streams import THREADS, Server, server
from tests.waiting import wait_until

__all__ = ["server"]

pytestmark = pytest.mark.campaign  # a server for each: some seconds

TIMEOUT_S = 20.0
BODY = json.dumps({"name": "smuggled"}).encode()
PATH = "/api/v1/projects"


def head(server: Server, *lines: str, method: str = "POST", path: str = PATH) -> bytes:
    """A request's head with ada's token, and these lines more."""
    told = [
        f"{method} {path} HTTP/1.1",
        f"Host: 127.0.0.1:{server.port}",
        f"Authorization: {server.headers['Authorization']}",
        "Content-Type: application/json",
        *lines,
    ]
    return "\r\n".join([*told, "", ""]).encode("latin-1")


@contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    """A connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_S) as line:
        yield line


def talked(server: Server, *pieces: bytes) -> bytes:
    """What came back until the server closed; the client's own side ends behind the last piece."""
    found = b""
    with connected(server) as line:
        try:
            for piece in pieces:
                line.sendall(piece)
            line.shutdown(socket.SHUT_WR)
            while data := line.recv(65_536):
                found += data
        except ConnectionError:
            pass  # it closed while we still sent: what it said first may be lost
    return found


def statuses(answer: bytes) -> list[int]:
    """The status of each answer on the connection."""
    return [
        int(line.split(b" ")[1]) for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.")
    ]


def names(server: Server) -> list[str]:
    """The projects that there are."""
    return sorted(item["name"] for item in server.client.get("/projects").json()["items"])


def _chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


def requests(server: Server) -> dict[str, list[bytes]]:
    """Requests that must be refused, or cut off, without a deed; each as its pieces."""
    length = f"Content-Length: {len(BODY)}"
    chunks = "Transfer-Encoding: chunked"
    whole = _chunked(BODY) + b"0\r\n\r\n"
    inner = head(server, length).replace(b"POST", b"GPOST") + BODY
    return {
        "51 a header of 9,000 bytes": [head(server, length, "X-Long: " + "x" * 9_000), BODY],
        "51 150 headers": [head(server, length, *(f"X-{n}: 1" for n in range(150))), BODY],
        "51 an address of 9,000 bytes": [head(server, length, path=f"/{'x' * 9_000}"), BODY],
        "51 a header without a name": [head(server, length, ": x"), BODY],
        "51 a blank before the colon": [head(server, f"Content-Length : {len(BODY)}"), BODY],
        "51 a folded header": [head(server, "X-A: 1", " Content-Length: 3", length), BODY],
        "51 a NUL in a header": [head(server, length, "X-A: a\0b"), BODY],
        "52 less than its length": [head(server, f"Content-Length: {len(BODY) + 50}"), BODY],
        "52 a negative length": [head(server, "Content-Length: -1"), BODY],
        "52 a length with a sign": [head(server, f"Content-Length: +{len(BODY)}"), BODY],
        "52 a length of 5,000 digits": [head(server, f"Content-Length: {'9' * 5_000}"), BODY],
        "52 a length of other digits": [
            head(server).replace(b"\r\n\r\n", "\r\nContent-Length: ٢\r\n\r\n".encode()),
            BODY,
        ],
        "52 two lengths": [head(server, length, "Content-Length: 3"), BODY],
        "52 two lengths in one": [head(server, f"{length}, 3"), BODY],
        "52 length and chunks": [head(server, "Content-Length: 3", chunks), whole],
        "52 chunks and length": [head(server, chunks, length), whole],
        "52 chunks twice": [head(server, "Transfer-Encoding: chunked, chunked"), whole],
        "52 chunks, then as it is": [head(server, "Transfer-Encoding: chunked, identity"), whole],
        "52 another encoding": [head(server, "Transfer-Encoding: xchunked"), whole],
        "52 chunks in HTTP/1.0": [head(server, chunks).replace(b"HTTP/1.1", b"HTTP/1.0"), whole],
        "52 a chunk's length that is none": [head(server, chunks), b"zz\r\n" + whole],
        "52 a chunk's length below zero": [head(server, chunks), b"-1\r\n" + whole],
        "52 chunks that break off": [head(server, chunks), b"ffff\r\n" + BODY],
        "52 a request behind a body of none": [head(server, "Content-Length: 0"), inner],
        "53 a head that breaks off": [head(server, length)[:-40]],
        "56 two hosts": [head(server, length, "Host: evil.example", "Content-Length: 1"), BODY],
        "57 17 MiB in chunks": [
            head(server, chunks),
            _chunked(b'{"name": "', *[b"x" * 65_536] * 272, b'"}') + b"0\r\n\r\n",
        ],
        "57 a length of 17 MiB": [head(server, f"Content-Length: {17 << 20}"), b"x" * (17 << 20)],
    }


def test_what_is_no_request_is_refused_and_does_nothing(server: Server) -> None:
    """Of two readings of one request none is chosen: a proxy before us may have chosen the other.

    What gunicorn cannot read at all it answers itself, with 400; the rest has our problems.
    """
    before = names(server)
    found = []
    for name, pieces in requests(server).items():
        answer = talked(server, *pieces)
        told = statuses(answer)
        # RFC 9112 wants 501 for a transfer coding that a server does not know.
        if not all(400 <= status < 500 or status == 501 for status in told):
            found.append(f"{name}: {told}: {answer[:200]!r}")
        if b"Traceback" in answer or b"smuggled" in answer:
            found.append(f"{name}: {answer[:400]!r}")
        if names(server) != before:
            found.append(f"{name}: made a project")
            server.client.delete("/projects/smuggled")

    assert not found, "\n".join(found)


def test_a_body_longer_than_its_length_is_a_second_request_of_nobody(server: Server) -> None:
    """What stands behind a body is thrown away, or a request of its own that may nothing."""
    smuggled = (
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(BODY)}\r\nConnection: close\r\n\r\n"
    ).encode() + BODY

    answer = talked(server, head(server, "Content-Length: 2"), b"{}" + smuggled)

    assert statuses(answer) in ([422], [422, 401])
    assert names(server) == ["spine"]


def test_underscores_make_no_header_of_ours(server: Server) -> None:
    """`X_Agent_Session` is not `X-Agent-Session`, and `Content_Length` no length."""
    answer = talked(
        server,
        head(server, "Authorization_: x", f"Content_Length: {len(BODY)}", "Connection: close"),
    )

    assert all(400 <= status < 500 for status in statuses(answer))
    assert names(server) == ["spine"]


def test_slow_clients_hold_their_own_threads_only(server: Server) -> None:
    """Half of the threads wait for heads and bodies that never end; everybody else is served.

    Against more of them a proxy that buffers requests is needed: docs/operations.md says so.
    """
    slow = [
        head(server, "Content-Length: 100")[:-10],
        head(server, "Content-Length: 100") + b'{"',
    ] * 2
    assert len(slow) * 2 <= THREADS
    held = []
    for piece in slow:
        line = socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_S)
        line.sendall(piece)
        held.append(line)

    with ThreadPoolExecutor(2) as pool:  # with the bodies: what reads may have of the threads
        answers = list(pool.map(lambda _: server.client.get("/projects").status_code, range(40)))
    for line in held:
        line.close()

    assert answers == [200] * 40
    assert names(server) == ["spine"]


@pytest.mark.parametrize("size", [1, 100])
def test_clients_that_go_away_in_the_middle_leave_nothing(size: int, server: Server) -> None:
    """Bodies that are cut off at every place: no project, and all threads come back."""

    def cut(_: int) -> None:
        with connected(server) as line:
            line.sendall(head(server, f"Content-Length: {len(BODY) + 1}") + BODY[:size])

    threads = [threading.Thread(target=cut, args=(number,)) for number in range(4 * THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    wait_until(
        lambda: server.client.get("/projects").status_code == 200,
        message="the threads to come back",
    )
    assert names(server) == ["spine"]
    assert server.client.get("/health/db").status_code == 200
