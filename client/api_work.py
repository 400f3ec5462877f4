"""Experiments, tasks and artifacts of the typed SDK."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from airavata_scheduler.client.collection import Collection, path_of, without_none
from airavata_scheduler.client.errors import BadInputError, NotFoundError, WaitTimeoutError
from airavata_scheduler.client.event_stream import Event, events_of
from airavata_scheduler.client.experiment_sources import ExperimentSource, read_source
from airavata_scheduler.client.records import Artifact, Experiment, Progress, Record, Task
from airavata_scheduler.client.task_names import TaskName

# How long a request for the next event may stay silent before the connection counts as dead; the
# server sends a comment at least every 15 s.
EVENT_SILENCE_S = 45.0


class Experiments(Collection[Experiment]):
    """The experiments that we may see."""

    path = "/experiments"
    noun = "experiment"
    record = Experiment

    def submit_file(self, file: str | Path, *, project: str, **options: Any) -> Experiment:
        """Create and submit the experiment of a YAML or JSON file, with the local files it names.

        `options` are those of `create_from`.
        """
        options.setdefault("submit", True)
        return self.create_from(read_source(Path(file)), project=project, **options)

    def create_from(
        self,
        source: ExperimentSource,
        *,
        project: str,
        name: str | None = None,
        compute: Sequence[str] | None = None,
        storage: str | None = None,
        submit: bool = False,
    ) -> Experiment:
        """Create an experiment; its local files are sent first, those that the server has are not.

        Raises `BadInputError` with every mistake of the document at once.
        """
        for local in source.files.values():
            upload_blob(self.transport, project, local.path, local.sha256, local.size)
        body = source.body(project=project, name=name, compute=compute, storage=storage)
        answer = self.transport.post(self.path, {**body, "submit": submit})
        return Experiment.from_json(answer)

    def preview(
        self,
        source: ExperimentSource,
        *,
        project: str,
        name: str | None = None,
        compute: Sequence[str] | None = None,
        storage: str | None = None,
    ) -> dict[str, Any]:
        """What the document would run, without running or storing anything."""
        body = source.body(project=project, name=name, compute=compute, storage=storage)
        answer: dict[str, Any] = self.transport.post(self.path, {**body, "dry_run": True})
        return answer

    def act(self, experiment: str, action: str, **body: Any) -> Experiment:
        """Apply `action`: submit, pause, resume, cancel, retry or derive."""
        path = path_of("/experiments", experiment, action)
        try:
            return Experiment.from_json(self.transport.post(path, without_none(body)))
        except NotFoundError as error:
            raise self.with_nearest(error, experiment) from error

    def progress(self, experiment: str) -> Progress:
        """How far it is."""
        return Progress.from_json(self._get(experiment, "progress"))

    def explain(self, experiment: str) -> dict[str, Any]:
        """Why it is where it is, and where its tasks may run."""
        answer: dict[str, Any] = self._get(experiment, "explain")
        return answer

    def timeline(self, experiment: str) -> Iterator[Record]:
        """What happened, oldest first."""
        return self.pages(path_of("/experiments", experiment, "timeline"), Record)

    def tasks(self, experiment: str, *, limit: int | None = None, **query: Any) -> Iterator[Task]:
        """Its tasks; `state`, `node` and `index` narrow them."""
        path = path_of("/experiments", experiment, "tasks")
        return self.pages(path, Task, limit=limit, **query)

    def failed_tasks(self, experiment: str, *, limit: int | None = None) -> Iterator[Task]:
        """Its tasks that failed, each with its reason."""
        path = path_of("/experiments", experiment, "failed-tasks")
        return self.pages(path, Task, limit=limit)

    def artifacts(self, experiment: str, **query: Any) -> Iterator[Artifact]:
        """Its output files; `node`, `index` and `path` (a glob) narrow them."""
        return self.pages(path_of("/experiments", experiment, "artifacts"), Artifact, **query)

    @contextlib.contextmanager
    def archive(self, experiment: str, **query: Any) -> Iterator[httpx.Response]:
        """The output files as one tar.gz, streamed; `node` and `path` narrow them."""
        path = path_of("/experiments", experiment, "archive")
        headers = {"Accept": "application/gzip", "Accept-Encoding": "identity"}
        with self.transport.stream("GET", path, query=query, headers=headers) as response:
            yield response

    @contextlib.contextmanager
    def events(
        self, experiment: str, last_event_id: str | None = None
    ) -> Iterator[Iterator[Event]]:
        """The live events, from after `last_event_id`; the stream ends with the experiment."""
        path = path_of("/experiments", experiment, "events")
        with event_stream(self.transport.stream, path, last_event_id) as events:
            yield events

    def wait(self, experiment: str, *, timeout_s: float | None = None) -> Experiment:
        """Wait until every task ended. Raises `WaitTimeoutError` after `timeout_s` seconds."""
        from airavata_scheduler.client.watch import follow  # noqa: PLC0415 - a cycle otherwise

        if not follow(self, experiment, timeout_s=timeout_s):
            raise WaitTimeoutError(
                f"Experiment {experiment} did not end within {timeout_s:g} s.",
                reason="It goes on.",
                hint=f"airavata experiment watch {experiment}",
            )
        return self.get(experiment)

    def _get(self, experiment: str, part: str) -> Any:
        try:
            return self.transport.get(path_of("/experiments", experiment, part))
        except NotFoundError as error:
            raise self.with_nearest(error, experiment) from error


class Tasks(Collection[Task]):
    """Single tasks, by id or as EXPERIMENT/NODE[INDEX]."""

    path = "/tasks"
    noun = "task"
    record = Task

    def find(self, name: str) -> Task:
        """The task of an id, or of a name such as `my-sweep/simulate[17]`.

        Raises `NotFoundError`; also for an instance that a lazy sweep has not reached yet.
        """
        if "/" not in name:
            return Task.from_json(self.transport.get(path_of(self.path, name)))
        wanted = TaskName.parse(name)
        query = {"node": wanted.node, "index": wanted.index}
        path = path_of("/experiments", wanted.experiment, "tasks")
        for task in self.pages(path, Task, limit=1, **query):
            return task
        raise NotFoundError(
            f"Experiment {wanted.experiment} has no task {wanted.node}[{wanted.index}] yet.",
            reason="A sweep's instances come into being as they are queued.",
            hint=f"airavata experiment tasks {wanted.experiment}",
        )

    def attempts(self, task_id: str) -> Iterator[Record]:
        """Every try to run the task, oldest first."""
        return self.pages(path_of(self.path, task_id, "attempts"), Record)

    def explain(self, task_id: str) -> dict[str, Any]:
        """Why the task is where it is."""
        answer: dict[str, Any] = self.transport.get(path_of(self.path, task_id, "explain"))
        return answer

    def artifacts(self, task_id: str) -> Iterator[Artifact]:
        """The task's output files."""
        return self.pages(path_of(self.path, task_id, "artifacts"), Artifact)

    def cancel(self, task_id: str) -> Task:
        """Stop the task; a result that was accepted first stays."""
        return Task.from_json(self.transport.post(path_of(self.path, task_id, "cancel")))

    def log(
        self,
        task_id: str,
        stream: str = "stdout",
        *,
        attempt: int | None = None,
        offset: int | None = None,
        limit: int | None = None,
    ) -> tuple[bytes, int, bool]:
        """Bytes of a log from `offset`: (bytes, whole size so far, whether the log is complete).

        `limit` bounds the bytes of this answer; a negative `offset` counts from the end.
        """
        response = self.transport.send(
            "GET",
            path_of(self.path, task_id, "logs", stream),
            query={"attempt": attempt, "offset": offset, "limit": limit},
            headers={"Accept": "*/*"},
        )
        size = int(response.headers.get("X-Log-Size", len(response.content)))
        complete = response.headers.get("X-Log-Complete", "true").lower() in ("true", "1")
        return response.content, size, complete

    @contextlib.contextmanager
    def log_events(
        self, task_id: str, stream: str, last_event_id: str | None = None
    ) -> Iterator[Iterator[Event]]:
        """A log as it grows; the stream ends with the task."""
        path = path_of(self.path, task_id, "logs", stream, "events")
        with event_stream(self.transport.stream, path, last_event_id) as events:
            yield events


class Artifacts:
    """Single output files."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def get(self, artifact_id: str) -> Artifact:
        """What is known of one output file."""
        return Artifact.from_json(self._transport.get(path_of("/artifacts", artifact_id)))

    @contextlib.contextmanager
    def content(self, artifact_id: str, *, offset: int = 0) -> Iterator[httpx.Response]:
        """The file's bytes, streamed, from `offset` (status 206 says that the server obeyed)."""
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        path = path_of("/artifacts", artifact_id, "content")
        with self._transport.stream("GET", path, headers=headers) as response:
            yield response

    def read(self, artifact_id: str) -> bytes:
        """The whole file in memory."""
        with self.content(artifact_id) as response:
            content: bytes = response.read()
            return content


@contextlib.contextmanager
def event_stream(stream: Any, path: str, last_event_id: str | None) -> Iterator[Iterator[Event]]:
    """Open a stream of server-sent events at `path`."""
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
    if last_event_id is not None:
        headers["Last-Event-ID"] = last_event_id
    timeout = httpx.Timeout(EVENT_SILENCE_S, connect=10.0)
    with stream("GET", path, headers=headers, timeout=timeout) as response:
        yield events_of(response.iter_lines())


def upload_blob(transport: Any, project: str, path: Path, sha256: str, size: int) -> None:
    """Send a local file as a blob of the project, unless the server has it."""
    target = path_of("/projects", project, "blobs", sha256)
    try:
        transport.send("HEAD", target)
        return
    except NotFoundError:
        pass
    try:
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        transport.send("PUT", target, content=lambda: _chunks(path), headers=headers)
    except OSError as error:
        raise BadInputError(f"{path} cannot be read.", reason=error.strerror) from error


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            yield chunk
