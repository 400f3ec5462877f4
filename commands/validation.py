"""Whether the schema means what `db/spicedb_validation.yaml` says: by `zed`, else by SpiceDB.

Without `zed` a private SpiceDB is started for the moment: it gets the file's schema and
relationships, is asked each assertion, and must find exactly the subjects that are expected. (`zed`
also compares by which relation a subject is found; that part is not looked at here.)
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import grpc
from authzed.api.v1 import (
    CheckPermissionRequest,
    CheckPermissionResponse,
    Consistency,
    InsecureClient,
    LookupSubjectsRequest,
    ObjectReference,
    ReadSchemaRequest,
    RelationshipUpdate,
    SubjectReference,
    WriteRelationshipsRequest,
    WriteSchemaRequest,
)
from authzed.api.v1 import Relationship as WireRelationship

from airavata_scheduler.commands import validation_file
from airavata_scheduler.commands.programs import spicedb_program
from airavata_scheduler.commands.validation_file import Expectation, ValidationFile
from airavata_scheduler.models.errors import BadInput, ConfigurationError
from airavata_scheduler.models.relations import Relationship

DEFAULT: Final = Path(__file__).parents[1] / "db" / "spicedb_validation.yaml"
START_TIMEOUT_S: Final = 20.0
CALL_TIMEOUT_S: Final = 10.0
STOP_TIMEOUT_S: Final = 5.0
KEY: Final = "validation"  # of a store in memory that ends with this command

_NEWEST: Final = Consistency(fully_consistent=True)
_DEFINITION: Final = re.compile(r"^\s*definition (\w+)", re.MULTILINE)
_EMPTY: Final = frozenset({grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND})


def by_zed(path: Path) -> int | None:
    """Let `zed validate` do it: its exit code; None where it is not on the PATH."""
    zed = shutil.which("zed")
    if zed is None:
        return None
    return subprocess.run([zed, "validate", str(path)], check=False).returncode


def by_spicedb(path: Path) -> tuple[int, list[str]]:
    """How many statements hold in a private SpiceDB, and a sentence for each that does not.

    Raises BadInput for a file that SpiceDB or we cannot read, ConfigurationError without a SpiceDB.
    """
    told = validation_file.read(path)
    with _private_spicedb() as client:
        _fill(client, told)
        faults = [*_wrong_assertions(client, told), *_wrong_expectations(client, told)]
    count = len(told.assertions) + sum(len(item.subjects) for item in told.expectations)
    return count, faults


@contextmanager
def _private_spicedb() -> Iterator[Any]:
    """The client of a SpiceDB of our own, in memory, for the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [
        *(spicedb_program(), "serve-testing", f"--grpc-addr={address}", "--http-enabled=false"),
        *("--readonly-grpc-enabled=false", "--readonly-http-enabled=false"),
        *("--skip-release-check", "--log-level=warn"),
    ]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            client = InsecureClient(address, KEY)
            _await_start(process, client, log)
            yield client
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await_start(process: subprocess.Popen[bytes], client: Any, log: IO[bytes]) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline_s:
        try:
            client.ReadSchema(ReadSchemaRequest(), timeout=1.0, wait_for_ready=True)
        except grpc.RpcError as error:
            if error.code() not in _EMPTY:
                continue
        return
    log.seek(0)
    said = log.read().decode(errors="replace").strip().splitlines()
    raise ConfigurationError(f"SpiceDB did not start: {said[-1] if said else 'it says nothing'}")


def _fill(client: Any, told: ValidationFile) -> None:
    """Write schema and relationships, one at a time: so what is refused has its line."""
    try:
        client.WriteSchema(WriteSchemaRequest(schema=told.schema), timeout=CALL_TIMEOUT_S)
    except grpc.RpcError as error:
        raise BadInput(
            f"{told.path}: SpiceDB refuses the schema: {error.details()}", code="validation_file"
        ) from None
    for fact in told.facts:
        update = RelationshipUpdate(
            operation=RelationshipUpdate.OPERATION_CREATE, relationship=_wire(fact.relationship)
        )
        try:
            client.WriteRelationships(
                WriteRelationshipsRequest(updates=[update]), timeout=CALL_TIMEOUT_S
            )
        except grpc.RpcError as error:
            raise validation_file.fault(
                told.path, fact.line, f"SpiceDB refuses {fact.relationship}: {error.details()}"
            ) from None


def _wrong_assertions(client: Any, told: ValidationFile) -> Iterator[str]:
    for assertion in told.assertions:
        asked = assertion.asked
        request = CheckPermissionRequest(
            consistency=_NEWEST,
            resource=_object(asked.kind, asked.id),
            permission=asked.relation,
            subject=_subject(asked),
        )
        place = f"{told.path}:{assertion.line}:"
        try:
            answer = client.CheckPermission(request, timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            yield f"{place} SpiceDB cannot answer {asked}: {error.details()}"
            continue
        yes = answer.permissionship == CheckPermissionResponse.PERMISSIONSHIP_HAS_PERMISSION
        if yes != assertion.said:
            yield f"{place} {asked} is {_word(yes)}, not {_word(assertion.said)}"


def _word(yes: bool) -> str:
    return "true" if yes else "false"


def _wrong_expectations(client: Any, told: ValidationFile) -> Iterator[str]:
    kinds = _DEFINITION.findall(told.schema)
    subjects = {(kind, "") for kind in kinds} | {
        (fact.relationship.subject_kind, fact.relationship.subject_relation) for fact in told.facts
    }
    for expected in told.expectations:
        name = f"{expected.kind}:{expected.id}#{expected.permission}"
        try:
            found = _found(client, expected, sorted(subjects))
        except grpc.RpcError as error:
            yield f"{told.path}:{expected.line}: SpiceDB cannot answer {name}: {error.details()}"
            continue
        for subject, line in expected.subjects.items():
            if subject not in found:
                yield f"{told.path}:{line}: {name} does not have [{subject}]"
        for subject in sorted(found - set(expected.subjects)):
            yield f"{told.path}:{expected.line}: {name} also has [{subject}], which is not expected"


def _found(client: Any, expected: Expectation, subjects: list[tuple[str, str]]) -> set[str]:
    """Every subject of an object's permission, those that stand for many too (`group:g#member`)."""
    found = set()
    for kind, relation in subjects:
        request = LookupSubjectsRequest(
            consistency=_NEWEST,
            resource=_object(expected.kind, expected.id),
            permission=expected.permission,
            subject_object_type=kind,
            optional_subject_relation=relation,
        )
        tail = f"#{relation}" if relation else ""
        found |= {
            f"{kind}:{answer.subject.subject_object_id}{tail}"
            for answer in client.LookupSubjects(request, timeout=CALL_TIMEOUT_S)
        }
    # Each set of subjects is found in itself, which says nothing.
    return found - {f"{expected.kind}:{expected.id}#{expected.permission}"}


def _object(kind: str, object_id: str) -> ObjectReference:
    return ObjectReference(object_type=kind, object_id=object_id)


def _subject(relationship: Relationship) -> SubjectReference:
    return SubjectReference(
        object=_object(relationship.subject_kind, relationship.subject_id),
        optional_relation=relationship.subject_relation,
    )


def _wire(relationship: Relationship) -> WireRelationship:
    return WireRelationship(
        resource=_object(relationship.kind, relationship.id),
        relation=relationship.relation,
        subject=_subject(relationship),
    )
