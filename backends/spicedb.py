"""SpiceDB: checks, listings and writes, with one meaning for everything that can go wrong.

One client a process, made on first use (never before a fork: gRPC's threads do not survive one).
Nothing is retried here but a check that lost its connection; whoever writes is fenced.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Final, TypeVar

import grpc
from authzed.api.v1 import (
    CheckBulkPermissionsRequest,
    CheckBulkPermissionsRequestItem,
    Consistency,
    DeleteRelationshipsRequest,
    DeleteRelationshipsResponse,
    InsecureClient,
    LookupResourcesRequest,
    ReadRelationshipsRequest,
    RelationshipFilter,
    RelationshipUpdate,
    SubjectReference,
    SyncClient,
    WriteRelationshipsRequest,
    WriteSchemaRequest,
)
from authzed.api.v1.schema_service_pb2 import DiffSchemaRequest, ReflectSchemaRequest
from grpcutil import bearer_token_credentials

from airavata_scheduler.backends.spicedb_faults import (
    Fenced,
    PermissionsUnavailable,
    StoreForeign,
    away,
    meaning,
)
from airavata_scheduler.backends.spicedb_wire import (
    Fence,
    Question,
    an_object,
    at_least,
    message,
    precondition,
    relationship_of,
    said_yes,
)
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.errors import ConfigurationError
from airavata_scheduler.models.relations import Relationship

__all__ = [
    "Fence",
    "Fenced",
    "PermissionsUnavailable",
    "Question",
    "SpiceDB",
    "StoreForeign",
    "configure",
    "spicedb",
]

CHECK_TIMEOUT_S: Final = 2.0
WRITE_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 300.0  # of all that stands there
AWAY_S: Final = 1.0
MAX_UPDATES: Final = 1000  # SpiceDB's own limit for one write

_CHANNEL: Final = [
    # A SpiceDB that comes back must be found at once: gRPC's own back-off goes up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.enable_http_proxy", 0),
]
_R = TypeVar("_R")


class SpiceDB:
    """One connection to SpiceDB."""

    def __init__(self, endpoint: str, token: str, *, insecure: bool, ca: bytes | None) -> None:
        self.endpoint = endpoint
        self._away_until: float | None = None  # it hung: nobody waits for it before this moment
        self._probe = threading.Lock()  # held by the one call that finds out whether it is back
        if insecure:
            self._client: Any = InsecureClient(endpoint, token, _CHANNEL)
        else:
            self._client = SyncClient(endpoint, bearer_token_credentials(token, ca), _CHANNEL)

    def check(self, questions: Sequence[Question], *, token: str | None) -> list[bool]:
        """The answers, in order, at a state that is at least as new as `token`.

        Raises PermissionsUnavailable, and StoreForeign where schema or token are unknown there.
        """
        request = CheckBulkPermissionsRequest(
            consistency=at_least(token),
            items=[
                CheckBulkPermissionsRequestItem(
                    resource=an_object(asked.kind, asked.id),
                    permission=asked.permission,
                    subject=SubjectReference(object=an_object(asked.user_kind, asked.user_id)),
                )
                for asked in questions
            ],
        )
        answer = self._call(
            lambda: self._client.CheckBulkPermissions(request, timeout=CHECK_TIMEOUT_S), again=True
        )
        return [said_yes(pair) for pair in answer.pairs]

    def objects(self, kind: str, permission: str, user_id: str, *, token: str | None) -> list[str]:
        """The ids of the objects of `kind` on which the user has `permission`."""
        request = LookupResourcesRequest(
            consistency=at_least(token),
            resource_object_type=kind,
            permission=permission,
            subject=SubjectReference(object=an_object("user", user_id)),
        )
        return self._call(
            lambda: [
                found.resource_object_id
                for found in self._client.LookupResources(request, timeout=CHECK_TIMEOUT_S)
            ],
            again=True,
        )

    def write(
        self,
        touch: Iterable[Relationship],
        delete: Iterable[Relationship],
        fences: Iterable[Fence],
    ) -> str:
        """Write all or nothing if every fence holds; the ZedToken. Raises Fenced otherwise."""
        updates = [
            RelationshipUpdate(operation=operation, relationship=message(relationship))
            for operation, relationships in (
                (RelationshipUpdate.OPERATION_TOUCH, touch),
                (RelationshipUpdate.OPERATION_DELETE, delete),
            )
            for relationship in relationships
        ]
        request = WriteRelationshipsRequest(
            updates=updates, optional_preconditions=[precondition(fence) for fence in fences]
        )
        answer = self._call(
            lambda: self._client.WriteRelationships(request, timeout=WRITE_TIMEOUT_S)
        )
        return str(answer.written_at.token)

    def clear_some(self, kind: str, fence: Fence, *, relation: str = "") -> bool:
        """Delete up to MAX_UPDATES relationships of the objects of `kind`; whether none is left.

        With `relation` only those of that relation. Raises Fenced.
        """
        request = DeleteRelationshipsRequest(
            relationship_filter=RelationshipFilter(resource_type=kind, optional_relation=relation),
            optional_preconditions=[precondition(fence)],
            optional_limit=MAX_UPDATES,
            optional_allow_partial_deletions=True,
        )
        answer = self._call(
            lambda: self._client.DeleteRelationships(request, timeout=WRITE_TIMEOUT_S)
        )
        complete = DeleteRelationshipsResponse.DELETION_PROGRESS_COMPLETE
        return bool(answer.deletion_progress == complete)

    def relationships(
        self, kind: str, object_id: str = "", *, timeout_s: float = READ_TIMEOUT_S
    ) -> Iterator[Relationship]:
        """Every relationship of the objects of `kind`, or of one object, at the newest state."""
        request = ReadRelationshipsRequest(
            consistency=Consistency(fully_consistent=True),
            relationship_filter=RelationshipFilter(
                resource_type=kind, optional_resource_id=object_id
            ),
        )
        stream = self._call(lambda: self._client.ReadRelationships(request, timeout=timeout_s))
        while True:
            found = self._call(lambda: next(stream, None))
            if found is None:
                return
            yield relationship_of(found.relationship)

    def kinds(self) -> list[str]:
        """The kinds of objects that the schema there has; empty where there is none."""
        request = ReflectSchemaRequest(consistency=Consistency(fully_consistent=True))
        try:
            answer = self._call(
                lambda: self._client.ReflectSchema(request, timeout=CHECK_TIMEOUT_S)
            )
        except StoreForeign:
            return []
        return [definition.name for definition in answer.definitions]

    def has_schema(self, text: str) -> bool:
        """Whether the schema there means and says what `text` does, however it is written."""
        request = DiffSchemaRequest(
            consistency=Consistency(fully_consistent=True), comparison_schema=text
        )
        try:
            answer = self._call(lambda: self._client.DiffSchema(request, timeout=CHECK_TIMEOUT_S))
        except StoreForeign:
            return False
        return not answer.diffs

    def write_schema(self, text: str) -> None:
        """Replace the schema. Raises ConfigurationError with SpiceDB's words if it refuses."""
        request = WriteSchemaRequest(schema=text)
        try:
            self._client.WriteSchema(request, timeout=WRITE_TIMEOUT_S)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
                raise ConfigurationError(f"SpiceDB refuses the schema: {error.details()}") from None
            raise meaning(error.code(), error.details()) from None

    def _call(self, call: Callable[[], _R], *, again: bool = False) -> _R:
        """One call; one that hangs must not hold a thread of each request for the whole time-out.

        After a time-out calls fail at once, but for one each second, which finds out more.
        """
        away_until = self._away_until
        if away_until is None:
            return self._called(call, again=again)
        if time.monotonic() < away_until or not self._probe.acquire(blocking=False):
            raise away()
        try:
            answer = self._called(call, again=again)
            self._away_until = None
            return answer
        finally:
            self._probe.release()

    def _called(self, call: Callable[[], _R], *, again: bool) -> _R:
        try:
            return call()
        except grpc.RpcError as error:
            if again and error.code() == grpc.StatusCode.UNAVAILABLE:
                return self._called(call, again=False)
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                self._away_until = time.monotonic() + AWAY_S
            elif self._away_until is not None:
                self._away_until = None  # it speaks, or its port is closed: nobody has to wait
            raise meaning(error.code(), error.details()) from None


_lock = threading.Lock()
_settings: dict[str, Any] = {}


def configure(configuration: Configuration) -> None:
    """Take the settings; the connection is made by the process that first asks for it."""
    with _lock:
        _settings.clear()
        _settings.update(
            endpoint=configuration.spicedb_endpoint,
            token=configuration.spicedb_token,
            insecure=configuration.spicedb_insecure,
            ca_file=configuration.spicedb_ca_file,
        )
        _connection.cache_clear()


def spicedb() -> SpiceDB:
    """This process's connection to SpiceDB."""
    return _connection(os.getpid())


@cache
def _connection(_pid: int) -> SpiceDB:
    ca_file = _settings["ca_file"]
    return SpiceDB(
        _settings["endpoint"],
        _settings["token"],
        insecure=_settings["insecure"],
        ca=ca_file.read_bytes() if ca_file is not None else None,
    )
