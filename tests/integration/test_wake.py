"""Wake-ups over a real Redis: they arrive in other processes, and nobody hangs when Redis dies."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from airavata_scheduler.queue import connection, wake
from airavata_scheduler.queue.wake import Waiter
from tests.servers.redis import Redis
from tests.waiting import wait_until

PUBLISH = (
    "import sys; from airavata_scheduler.queue import connection, wake; "
    "connection.configure(sys.argv[1]); wake.publish(sys.argv[2], sys.argv[3])"
)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Redis]:
    """A Redis of this test alone, which it may kill; this process is connected to it."""
    server = Redis(tmp_path / "redis")
    server.start()
    connection.configure(server.url)
    yield server
    connection.configure(connection.DEFAULT_URL)
    server.stop()


def heard_by(waiter: Waiter, timeout_s: float = 10.0) -> bool:
    """Whether a real wake-up (not the end of a second without Redis) comes in time."""
    deadline = time.monotonic() + timeout_s
    while (left_s := deadline - time.monotonic()) > 0:
        if waiter.wait(left_s) and waiter.heard:
            return True
    return False


def listening(waiter: Waiter) -> None:
    """Wait until this process hears Redis, and forget what rang until then."""
    wait_until(lambda: waiter._board.connected, message="the listener's subscription")
    waiter.event.clear()
    waiter.heard.clear()


def test_a_wake_up_arrives_in_another_process(own_redis: Redis) -> None:
    """Who waits for a compute resource is woken by a publication of another process."""
    with Waiter(("work", "c1"), ("attention", "s1")) as waiter:
        listening(waiter)
        subprocess.run([sys.executable, "-c", PUBLISH, own_redis.url, "work", "c1"], check=True)

        assert heard_by(waiter)
        assert waiter.heard == {("work", "c1")}


def test_only_the_subject_is_woken(own_redis: Redis) -> None:
    """A wake-up for another key leaves a waiter asleep."""
    with Waiter(("work", "c1")) as waiter:
        listening(waiter)
        wake.publish("work", "c2")
        wake.publish("task", "c1")

        assert not waiter.wait(0.2)


def test_a_wake_up_between_look_and_wait_is_kept(own_redis: Redis) -> None:
    """What is published before the wait begins ends it at once: there is no gap to fall into."""
    with Waiter(("task", "t1")) as waiter:
        listening(waiter)
        wake.publish("task", "t1")
        began_s = time.monotonic()

        assert waiter.wait(30.0)
        assert time.monotonic() - began_s < 5.0


def test_many_subjects_travel_in_one_message(own_redis: Redis) -> None:
    """A batch of wake-ups is one publication."""
    client = connection.client()
    heard = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
    heard.subscribe(wake.channel())
    heard.get_message(timeout=5.0)

    wake.publish_many([("task", f"t{number}") for number in range(500)])

    first = wait_until(lambda: heard.get_message(timeout=1.0), message="the message")
    assert first["data"].count(b'"task"') == 500
    assert heard.get_message(timeout=0.1) is None
    heard.close()


def test_redis_killed_while_waiting(own_redis: Redis) -> None:
    """With Redis killed a waiter looks again each second; restarted, wake-ups arrive again."""
    with Waiter(("experiment", "e1")) as waiter:
        listening(waiter)
        own_redis.server.stop(signal.SIGKILL)
        wait_until(lambda: not waiter._board.connected, message="the loss being noticed")
        waiter.event.clear()
        began_s = time.monotonic()

        assert waiter.wait(30.0), "a slow poll in place of wake-ups"
        assert time.monotonic() - began_s < 3.0
        wake.publish("experiment", "e1")
        assert heard_by(waiter), "waiters of the same process need no Redis"

        own_redis.start()
        listening(waiter)
        subprocess.run(
            [sys.executable, "-c", PUBLISH, own_redis.url, "experiment", "e1"], check=True
        )
        assert heard_by(waiter)


def test_waiting_without_any_redis_is_a_slow_poll() -> None:
    """Where Redis never was there, publish says nothing and wait returns within a second."""
    connection.configure("redis://127.0.0.1:1/0")
    with Waiter(("work", "c9")) as waiter:
        began_s = time.monotonic()
        wake.publish("work", "somebody else")

        assert waiter.wait(30.0)
        assert time.monotonic() - began_s < 3.0
    connection.configure(connection.DEFAULT_URL)


def test_the_breaker_spares_everybody_a_time_out(own_redis: Redis) -> None:
    """After a failure no call is tried for a second, so an outage costs one thread one try."""
    own_redis.stop()
    tries: list[float] = []

    def one() -> None:
        began_s = time.monotonic()
        wake.publish("work", "c1")
        tries.append(time.monotonic() - began_s)

    threads = [threading.Thread(target=one) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert max(tries) < connection.CONNECT_TIMEOUT_S * 2
    with pytest.raises(connection.Resting), connection.guarded():
        pass


def test_messages_of_strangers_do_no_harm(own_redis: Redis) -> None:
    """Whatever else stands on the channel is passed over; the listener lives on."""
    with Waiter(("work", "c1")) as waiter:
        listening(waiter)
        client = connection.client()
        for text in (b"\xff\xfe", b"17", b'["x", 3]', b"[1, [[1,2,3]]]", b"null"):
            client.publish(wake.channel(), text)
        subprocess.run([sys.executable, "-c", PUBLISH, own_redis.url, "work", "c1"], check=True)

        assert heard_by(waiter)


def test_a_forked_child_hears_for_itself(own_redis: Redis) -> None:
    """After a fork the child has its own listener: gunicorn's workers fork after imports."""
    with Waiter(("work", "c1")) as waiter:
        listening(waiter)
        code = (
            "import os, sys, time; from airavata_scheduler.queue import connection, wake\n"
            "connection.configure(sys.argv[1])\n"
            "with wake.Waiter(('work', 'x')) as w: w.wait(2)\n"
            "pid = os.fork()\n"
            "with wake.Waiter(('work', 'child')) as w:\n"
            "    end = time.monotonic() + 10\n"
            "    while pid == 0 and not w.heard and time.monotonic() < end: w.wait(1)\n"
            "    if pid == 0: os._exit(0 if ('work', 'child') in w.heard else 1)\n"
            "    end = time.monotonic() + 10\n"
            "    while time.monotonic() < end:\n"
            "        wake.publish('work', 'child')\n"
            "        if os.waitpid(pid, os.WNOHANG)[0]: sys.exit(0)\n"
            "        w.wait(0.1)\n"
            "    sys.exit(1)\n"
        )
        done = subprocess.run([sys.executable, "-c", code, own_redis.url], check=False, timeout=60)

        assert done.returncode == 0
