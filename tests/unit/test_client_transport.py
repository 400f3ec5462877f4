"""The client's one way to send: what is retried, how long, and with which token."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from airavata_scheduler.client.api import Client
from airavata_scheduler.client.errors import (
    BadInputError,
    BusyError,
    ClientError,
    ConflictError,
    NotAllowedError,
    NotFoundError,
    UnreachableError,
    from_problem,
)
from airavata_scheduler.client.profile import Profile, Settings, TokenSource, write_profile
from airavata_scheduler.client.transport import Transport

Answer = httpx.Response | Exception


class Twin:
    """A server of prepared answers that remembers the requests; its clock moves by sleeping."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.slept: list[float] = []

    def transport(self, **options: Any) -> Transport:
        """A transport that speaks to this twin."""
        return Transport(
            "http://twin",
            http=httpx.MockTransport(self.answer),
            sleep=self.slept.append,
            clock=lambda: sum(self.slept),
            **options,
        )

    def answer(self, request: httpx.Request) -> httpx.Response:
        """The next of the prepared answers."""
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def ok(**body: Any) -> httpx.Response:
    """An answer with JSON."""
    return httpx.Response(200, json=body)


def problem(status: int, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    """A problem."""
    return httpx.Response(status, json={"title": "No.", **body}, headers=headers)


def test_a_post_is_repeated_with_the_same_idempotency_key() -> None:
    """A lost connection does not make two objects."""
    twin = Twin([httpx.ReadError("gone"), httpx.ConnectError("refused"), ok(id="1")])

    answer = twin.transport().post("/projects", {"name": "x"})

    assert answer == {"id": "1"}
    assert len({request.headers["Idempotency-Key"] for request in twin.requests}) == 1
    assert [request.content for request in twin.requests] == [b'{"name":"x"}'] * 3


def test_two_posts_have_two_keys() -> None:
    """The key belongs to the request, not to the client."""
    twin = Twin([ok(), ok()])
    transport = twin.transport()

    transport.post("/projects", {"name": "x"})
    transport.post("/projects", {"name": "x"})

    assert len({request.headers["Idempotency-Key"] for request in twin.requests}) == 2


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_obeyed(status: int) -> None:
    """The server's own number of seconds, not ours."""
    twin = Twin([problem(status, {"Retry-After": "7"}), ok(fine=True)])

    assert twin.transport().get("/users/me") == {"fine": True}
    assert twin.slept == [7.0]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, BadInputError),
        (401, NotAllowedError),
        (403, NotAllowedError),
        (404, NotFoundError),
        (409, ConflictError),
        (412, ConflictError),
        (422, BadInputError),
        (500, ClientError),
    ],
)
def test_a_refusal_is_not_repeated(status: int, expected: type[ClientError]) -> None:
    """What the server decided stays decided."""
    twin = Twin([problem(status, detail="because")])

    with pytest.raises(expected, match="because"):
        twin.transport().post("/projects", {})

    assert len(twin.requests) == 1


def test_it_gives_up_after_the_time_for_retries() -> None:
    """A server that was there is away for a minute: exit status 5, with the address."""
    twin = Twin([ok(), *[httpx.ConnectError("refused")] * 1000])
    transport = twin.transport(retry_for_s=60, away_for_s=4)
    transport.get("/health")

    with pytest.raises(UnreachableError, match="http://twin") as caught:
        transport.get("/health")

    assert caught.value.exit_code == 5
    assert 40 < sum(twin.slept) <= 60


def test_a_script_says_how_patient_it_is(tmp_path: Path) -> None:
    """A client that is told not to wait asks once."""
    twin = Twin([httpx.ConnectError("refused")])
    http = httpx.MockTransport(twin.answer)
    home = {"HOME": str(tmp_path)}
    client = Client("http://twin", token="t", environ=home, retry_for_s=0, http=http)

    with pytest.raises(UnreachableError), client:
        client.users.me()

    assert len(twin.requests) == 1


def test_a_person_waits_less_for_a_server_that_is_not_there() -> None:
    """The command gives up after seconds where nobody answers, and still obeys Retry-After."""
    away, busy = (
        Twin([httpx.ConnectError("refused")] * 1000),
        Twin([problem(429, {"Retry-After": "30"}), ok(fine=True)]),
    )

    with pytest.raises(UnreachableError):
        away.transport(away_for_s=4).get("/health")

    assert 1 < sum(away.slept) <= 4
    assert busy.transport(away_for_s=4).get("/health") == {"fine": True}


def test_a_person_is_told_of_a_long_wait() -> None:
    """Once, and what for; a moment's wait is nobody's business."""
    told: list[str] = []
    away = problem(503, {"Retry-After": "2"}, detail="OpenBao cannot be reached.")
    short, long = Twin([away, ok()]), Twin([away, away, away, away, ok()])

    for twin in (short, long):
        twin.transport(on_wait=lambda error: told.append(error.message)).get("/health")

    assert told == ["OpenBao cannot be reached."]
    assert len(long.slept) == 4


def test_busy_for_too_long_is_an_error_of_its_own() -> None:
    """A Retry-After beyond our patience is not waited for."""
    twin = Twin([problem(503, {"Retry-After": "3600"}, detail="Later.")])

    with pytest.raises(BusyError, match=r"Later\."):
        twin.transport().get("/health")

    assert twin.slept == []


def test_something_else_than_json_is_explained() -> None:
    """A wrong address often answers with a web page."""
    twin = Twin([httpx.Response(200, html="<h1>Hello</h1>")])

    with pytest.raises(UnreachableError, match="does not answer like"):
        twin.transport().get("/users/me")


def test_every_mistake_of_a_problem_is_shown() -> None:
    """`errors` of the problem become one line of reasons."""
    errors = [
        {"field": "tasks.a", "code": "x", "detail": "wrong"},
        {"field": "tasks.b", "code": "y", "detail": "missing"},
    ]

    error = from_problem(422, {"detail": "2 mistakes.", "field": "tasks.a", "errors": errors})

    assert error.message == "2 mistakes."
    assert error.reason == "tasks.a: wrong; tasks.b: missing"


def settings(folder: Path, **environ: str) -> Settings:
    """The settings with a profile in `folder`."""
    return Settings.resolve({"AIRAVATA_CONFIG_DIR": str(folder), **environ})


def logged_in(folder: Path) -> Settings:
    """A profile whose access token has lapsed."""
    write_profile(
        folder, server="http://twin", access_token="old", refresh_token="r1", expires_in=-5
    )
    return settings(folder)


def tokens(name: str) -> httpx.Response:
    """The answer of /auth/refresh."""
    return ok(access_token=name, refresh_token=f"refresh-{name}", expires_in=3600)


def test_a_lapsed_token_is_refreshed_once_by_many_threads(tmp_path: Path) -> None:
    """The refresh token is used once, whoever comes at the same moment: no reuse is detected."""
    lock, refreshed = threading.Lock(), []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/auth/refresh"):
            with lock:
                refreshed.append(request.content)
            return tokens("new")
        fresh = request.headers.get("Authorization") == "Bearer new"
        return ok(fine=True) if fresh else problem(401)

    source = logged_in(tmp_path)

    def ask() -> None:
        Transport("http://twin", TokenSource(source), http=httpx.MockTransport(answer)).get(
            "/users/me"
        )

    run_together(ask, 8)

    assert len(refreshed) == 1
    assert source.profile.read()["refresh_token"] == "refresh-new"


def run_together(work: Callable[[], None], count: int) -> None:
    """Run `work` in `count` threads that begin at the same moment; its errors come out here."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(count)

    def one() -> None:
        barrier.wait()
        try:
            work()
        except Exception as error:  # noqa: BLE001 - carried to the test
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_refused_token_is_refreshed_and_the_request_repeated(tmp_path: Path) -> None:
    """A token that the server no longer takes costs one refresh, not a login."""
    write_profile(tmp_path, server="http://twin", access_token="old", refresh_token="r1")
    twin = Twin([problem(401), tokens("new"), ok(fine=True)])
    transport = twin.transport(tokens=TokenSource(settings(tmp_path)))

    assert transport.get("/users/me") == {"fine": True}
    assert twin.requests[-1].headers["Authorization"] == "Bearer new"


def test_a_token_of_the_environment_is_never_refreshed(tmp_path: Path) -> None:
    """It is not ours to rotate, and never written to the profile."""
    logged_in(tmp_path)
    twin = Twin([problem(401, detail="expired")])
    source = TokenSource(settings(tmp_path, AIRAVATA_TOKEN="given", AIRAVATA_SERVER="http://twin"))

    with pytest.raises(NotAllowedError):
        twin.transport(tokens=source).get("/users/me")

    assert [request.headers["Authorization"] for request in twin.requests] == ["Bearer given"]
    assert "given" not in Profile(folder=tmp_path).path.read_text()


def test_a_token_is_shown_to_its_own_server_only(tmp_path: Path) -> None:
    """With another address the profile's token stays at home."""
    write_profile(tmp_path, server="http://home", access_token="secret", refresh_token="r1")
    twin = Twin([ok()])
    source = TokenSource(settings(tmp_path, AIRAVATA_SERVER="http://twin"))

    twin.transport(tokens=source).get("/health")

    assert "Authorization" not in twin.requests[0].headers
