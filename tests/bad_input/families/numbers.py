"""Families 33 to 40: numbers, sizes, times; in documents, in bodies, in queries, from agents."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from airavata_scheduler.models.ids import new_id
from airavata_scheduler.models.tables import Attempt
from tests.api import Answered
from tests.bad_input.case import Case
from tests.bad_input.world import World
from tests.wire_agent import CAPABILITIES, completed, digest_header, settle
from tests.work import sweep

HUGE = 10**30
_SCRIPT = {"scripts": {"S": "true\n"}, "parameters": {"N": {"type": "int"}, "F": "float"}}


def _axes(family: int, name: str, inputs: Mapping[str, Any], code: str, field: str) -> Case:
    """A sweep over `inputs`."""
    axes = {"F": 1, "N": 1, **inputs}
    return Case(
        family=family,
        name=f"axes: {name}",
        send="ada POST /experiments",
        json={
            "project": "spine",
            "document": {
                "name": "x",
                **_SCRIPT,
                "tasks": {"a": {"script": "S", "task_inputs": axes}},
            },
        },
        code=code,
        field=field,
    )


def _key(family: int, name: str, keys: Mapping[str, Any], code: str, field: str) -> Case:
    """A document of one task with some keys more."""
    return Case(
        family=family,
        name=f"document: {name}",
        send="ada POST /experiments",
        json={"project": "spine", "document": {"name": "x", "command": "true", **keys}},
        code=code,
        field=field,
    )


def _call(family: int, name: str, seed: Any, code: str) -> Case:
    return Case(
        family=family,
        name=f"call: {name}",
        send="ada POST /functions/heat/calls",
        json={"arguments": {"SEED": seed}},
        code=code,
        field="arguments.SEED",
    )


def _query(family: int, query: str, rule: str, **rest: Any) -> Case:
    parameter = query.partition("?")[2]
    return Case(
        family=family,
        name=f"query: {query}",
        send=f"ada GET {query}",
        code=rule,
        field=parameter.partition("=")[0],
        **rest,
    )


def _token(family: int, **expiry: Any) -> Case:
    ((field, value),) = expiry.items()
    return Case(
        family=family,
        name=f"token: {field} {value!r}"[:80],
        send="ada POST /users/me/tokens",
        json={"name": "t", "scopes": ["read"], field: value},
        code="invalid_expiry" if isinstance(value, str) else "invalid_string_type",
        field=field,
    )


def _limit(family: int, name: str, part: str, values: Mapping[str, Any], rule: str) -> Case:
    return Case(
        family=family,
        name=f"compute resource: {name}",
        send="root POST /compute-resources",
        json={"name": "c", "kind": "BARE_METAL", part: values},
        code=f"invalid_{rule}",
        field=f"{part}.{next(iter(values))}",
    )


def _session(family: int, name: str, said: Mapping[str, Any], field: str, rule: str) -> Case:
    """An agent that says nonsense about itself opens no session."""
    return Case(
        family=family,
        name=f"session: {name}",
        send="other_agent POST /session",
        json={"boot_id": "b", "state_folder_id": "f", **said},
        code=f"invalid_{rule}",
        field=field,
    )


def _is_clipped(world: World, answer: Answered) -> None:
    """The session is the agent's; planning and every page about it still work."""
    world.other_agent.session_id = answer.json["session_id"]
    _everybody_goes_on(world)


def _everybody_goes_on(world: World) -> None:
    body = {"project": "spine", "document": sweep("1..2")}
    assert world.ada.post("/experiments", {**body, "dry_run": True}).status_code == 200
    made = world.ada.post("/experiments", {**body, "submit": True})
    assert made.status_code == 201
    settle()
    paths = (
        "/agents",
        "/compute-resources/cluster/status",
        f"/experiments/{made.json['id']}/explain",
    )
    assert [world.ada.get(path).status_code for path in paths] == [200] * 3


def _beats(world: World, answer: Answered) -> None:
    assert answer.json["epoch"]
    _everybody_goes_on(world)


def _beat(name: str, **said: Any) -> Case:
    """A heartbeat is never lost by what is beside it."""
    return Case(
        family=36,
        name=f"heartbeat: {name}",
        send="agent POST /heartbeat",
        json={"seq": next(_beat_numbers), **said},
        status=200,
        holds=_beats,
    )


_beat_numbers: Iterator[int] = iter(range(10_000, 20_000))


def _report(family: int, name: str, **said: Any) -> Case:
    """Numbers that no clock or kernel says do not cost a task its result."""

    def holds(world: World, answer: Answered) -> None:
        del answer
        lease = world.agent.claim(1)["leases"][0]["lease"]
        (item,) = world.agent.report(completed(lease, **said))
        assert item["verdict"] == "accepted"
        assert Attempt.select().where(Attempt.lease_id == lease.split(".")[2]).count() == 1

    return Case(
        family=family,
        name=f"report: {name}",
        send="agent POST /reports",
        json={"items": []},
        status=200,
        holds=holds,
    )


def _is_quick(world: World, answer: Answered) -> None:
    """Counted in closed form: a sweep of any length is one record."""
    began = time.monotonic()
    assert world.ada.get(f"/experiments/{answer.json['id']}").json["total"] == answer.json["total"]
    assert time.monotonic() - began < 5


_LEASE_LOG = "agent PATCH /leases/{lease}/log/stdout"

CASES = (
    _axes(33, "10^13", {"N": "1..10^13"}, "too_many_tasks", "tasks"),
    _axes(33, "step 0", {"N": "1..5 step 0"}, "bad_range", "tasks.a.task_inputs.N"),
    _axes(33, "downwards", {"N": "5..1"}, "bad_range", "tasks.a.task_inputs.N"),
    _axes(33, "the wrong way", {"N": "1..5 step -1"}, "bad_range", "tasks.a.task_inputs.N"),
    _axes(33, "1e-9", {"F": "0..10^6 step 1e-9"}, "too_many_tasks", "tasks"),
    _axes(33, "powers of powers", {"N": "1..10^10^10"}, "bad_range", "tasks.a.task_inputs.N"),
    _axes(33, "a power without end", {"N": "1..9^999999999"}, "bad_range",
          "tasks.a.task_inputs.N"),
    Case(family=33, name="10^12", send="ada POST /experiments",
         json={"project": "spine", "document": sweep("1..10^12")}, status=201, holds=_is_quick),
    _axes(34, "a million times a million and one", {"N": "1..10^6", "F": "0..10^6"},
          "too_many_tasks", "tasks"),
    _axes(34, "lists beside ranges", {"N": "1..10^12", "F": [1, 2]}, "too_many_tasks", "tasks"),
    Case(family=34, name="seven axes of forty", send="ada POST /experiments",
         json={"project": "spine", "dry_run": True, "document": {
             "name": "x", "scripts": {"S": "true\n"},
             "parameters": {f"P{n}": "int" for n in range(7)},
             "tasks": {"a": {"script": "S",
                             "task_inputs": {f"P{n}": "1..40" for n in range(7)}}}}},
         status=200),
    *(
        Case(family=35, name=f"body: {text}", send="ada POST /compute-resources",
             data=b'{"name": "c", "price_per_core_hour": ' + text.encode() + b"}",
             code="number_out_of_range", field="price_per_core_hour")
        for text in ("NaN", "Infinity", "-Infinity", "1e999", "-1e999")
    ),
    Case(family=35, name="document as YAML: .nan", send="ada POST /experiments",
         json={"project": "spine", "document": "name: x\ncommand: 'true'\nretries: .nan\n"},
         code="not_finite", field="document"),
    Case(family=35, name="document as JSON: 1e999", send="ada POST /experiments",
         json={"project": "spine", "format": "json", "document": '{"name": "x", "retries": 1e999}'},
         code="not_finite", field="document"),
    Case(family=35, name="heartbeat: NaN", send="agent POST /heartbeat",
         data=b'{"seq": 1, "free": {"cpu": NaN}}', code="number_out_of_range", field="free.cpu"),
    Case(family=35, name="report: NaN of one item", send="agent POST /reports",
         data=b'{"items": [{"lease": "x", "outcome": "completed", "age_s": NaN}]}', status=200),
    Case(family=35, name="claim: infinity", send="agent POST /leases/claim",
         data=b'{"claim_id": "x", "seq": 1, "max": 1, "wait_s": Infinity}',
         code="number_out_of_range", field="wait_s"),
    _call(36, "2^63", 2**63, "out_of_range"),
    _call(36, "-2^63 - 1", -(2**63) - 1, "out_of_range"),
    Case(family=36, name="300 digits", send="ada POST /functions/heat/calls",
         json={"arguments": {"SEED": 10**299}}, code="number_too_large", field="arguments"),
    Case(family=36, name="5,000 digits", send="ada POST /functions/heat/calls",
         data=b'{"arguments": {"SEED": ' + b"9" * 5000 + b"}}", code="number_out_of_range",
         field="arguments.SEED"),
    Case(family=36, name="report: 5,000 digits", send="agent POST /reports",
         data=b'{"items": [' + b"9" * 5000 + b"]}", status=400, code="bad_json"),
    Case(family=36, name="minus nothing", send="ada POST /functions/heat/calls",
         json={"arguments": {"SEED": -0.0}}, status=201),
    _query(36, f"/tasks/{{task}}/logs/stdout?attempt={HUGE}", "invalid_less_than_equal"),
    _query(36, f"/tasks/{{task}}/logs/stdout/events?attempt={2**31}", "invalid_less_than_equal"),
    _query(36, f"/tasks/{{task}}/logs/stdout?limit={HUGE}", "invalid_less_than_equal"),
    _query(36, f"/experiments/{{experiment}}/tasks?index={HUGE}", "invalid_less_than_equal"),
    _query(36, f"/experiments/{{experiment}}/artifacts?index={HUGE}", "invalid_less_than_equal"),
    _query(36, f"/projects?limit={'9' * 3000}", "invalid_less_than_equal"),
    _query(36, "/projects?limit=0", "invalid_greater_than_equal"),
    _query(36, "/projects?limit=-1", "invalid_greater_than_equal"),
    Case(family=36, name="following an attempt that there is not",
         send="ada GET /tasks/{task}/logs/stdout/events?attempt=7", status=404,
         code="attempt_not_found"),
    *(
        Case(family=36, name=f"log offset {name}",
             send=f"ada GET /tasks/{{task}}/logs/stdout?offset={offset}", status=200)
        for name, offset in {"huge": HUGE, "before the beginning": -HUGE}.items()
    ),
    Case(family=36, name="reveal a huge version", send="ada POST /credentials/none/reveal",
         json={"version": HUGE}, status=404, code="credential_not_found"),
    Case(family=36, name="a version beyond the column", send="ada GET /functions/heat@4294967296",
         status=404, code="function_not_found"),
    Case(family=36, name="a packed argument's size", send="ada POST /functions/heat/calls",
         json={"packed": {"encoding": "blob", "sha256": "0" * 64, "size": HUGE}},
         code="invalid_less_than_equal", field="packed.size"),
    Case(family=36, name="a file's size", send="ada POST /experiments",
         json={"project": "spine", "document": {"name": "x", "command": "true"},
               "files": {"a": {"sha256": "0" * 64, "size": HUGE}}},
         code="invalid_less_than_equal", field="files.a.size"),
    Case(family=36, name="priority", send="ada POST /experiments",
         json={"project": "spine", "document": sweep(), "priority": HUGE},
         code="invalid_less_than_equal", field="priority"),
    Case(family=36, name="70,000 ids", send="ada POST /calls/results",
         data=lambda: json.dumps({"ids": [new_id() for _ in range(70_000)]}).encode(),
         code="invalid_too_long", field="ids"),
    Case(family=36, name="2,000 compute resources", send="ada POST /experiments",
         json={"project": "spine", "document": sweep(), "compute": ["cluster"] * 2000},
         code="invalid_too_long", field="compute"),
    Case(family=36, name="501 reports", send="agent POST /reports", json={"items": [{}] * 501},
         code="invalid_too_long", field="items"),
    _limit(36, "cores", "limits", {"max_cpu": HUGE}, "less_than_equal"),
    _limit(36, "memory", "limits", {"max_ram_gb": 1e308}, "less_than_equal"),
    _limit(36, "a heartbeat of a nanosecond", "timers", {"heartbeat_s": 1e-9},
           "greater_than_equal"),
    _limit(36, "a heartbeat of an age", "timers", {"heartbeat_s": 1e308}, "less_than_equal"),
    _key(36, "cores", {"resources": {"compute": {"cpu": 2**63}}}, "out_of_range",
         "resources.compute.cpu"),
    _key(36, "less than no core", {"resources": {"compute": {"cpu": -1}}}, "out_of_range",
         "resources.compute.cpu"),
    _key(36, "retries", {"retries": 2**31}, "out_of_range", "retries"),
    Case(family=36, name="claim: seq", send="agent POST /leases/claim",
         json={"claim_id": "x", "seq": HUGE, "max": 1}, code="invalid_less_than_equal",
         field="seq"),
    Case(family=36, name="heartbeat: seq", send="agent POST /heartbeat", json={"seq": HUGE},
         code="invalid_less_than_equal", field="seq"),
    Case(family=36, name="log: 19 digits", send=_LEASE_LOG, data=b"x",
         headers={"Content-Range": f"bytes {'9' * 19}-{'9' * 19}/*",
                  "Content-Digest": digest_header(b"x")},
         code="range_missing", field="Content-Range"),
    Case(family=36, name="log: backwards", send=_LEASE_LOG, data=b"x",
         headers={"Content-Range": "bytes 6-5/*", "Content-Digest": digest_header(b"x")},
         code="range_missing", field="Content-Range"),
    Case(family=36, name="log: a gibibyte behind", send=_LEASE_LOG, data=b"x",
         headers={"Content-Range": f"bytes {1 << 30}-{1 << 30}/*",
                  "Content-Digest": digest_header(b"x")},
         status=413, code="log_too_large"),
    _session(36, "cores as a word", {"capabilities": {"cpu": "many"}}, "capabilities.cpu",
             "int_type"),
    _session(36, "cores as a mapping", {"capabilities": {"cpu": {"a": 1}}}, "capabilities.cpu",
             "int_type"),
    _session(36, "memory as a fraction", {"capabilities": {"ram_mb": 1.5}}, "capabilities.ram_mb",
             "int_type"),
    _session(36, "features as a number", {"capabilities": {"features": 5}},
             "capabilities.features", "list_type"),
    _session(36, "features as mappings", {"capabilities": {"features": [{}]}},
             "capabilities.features[0]", "string_type"),
    _session(36, "ten thousand features", {"capabilities": {"features": ["x"] * 10_000}},
             "capabilities.features", "too_long"),
    _session(36, "a python version without end", {"capabilities": {"python": "3." * 1000}},
             "capabilities.python", "string_too_long"),
    _session(36, "a policy of megabytes", {"policy": {"a": "x" * 100_000}}, "policy",
             "value_error"),
    Case(family=36, name="session: a size that no machine has", send="other_agent POST /session",
         json={"boot_id": "b", "state_folder_id": "f",
               "capabilities": {**CAPABILITIES, "cpu": HUGE, "ram_mb": HUGE}},
         status=200, holds=_is_clipped),
    Case(family=36, name="session: less than nothing", send="other_agent POST /session",
         json={"boot_id": "b", "state_folder_id": "f",
               "capabilities": {**CAPABILITIES, "gpu": -HUGE, "disk_mb": -1}},
         status=200, holds=_is_clipped),
    Case(family=36, name="session: what we do not know yet", send="other_agent POST /session",
         json={"boot_id": "b", "state_folder_id": "f",
               "capabilities": {**CAPABILITIES, "quantum": {"bits": "many"}}},
         status=200, holds=_is_clipped),
    _beat("cores as a word", free={"cpu": "x", "ram_mb": None}),
    _beat("huge numbers", free={"cpu": HUGE, "gpu": 1e300}, disk={"free_mb": HUGE}),
    _beat("lists and mappings", free={"cpu": [1], "ram_mb": {"a": 1}}, spool={"results": "x"}),
    _beat("a hundred kilobytes", free={"note": "x" * 100_000}, disk={"x": "y" * 100_000}),
    _report(36, "a duration of an age", duration_s=1e308),
    _report(36, "an age before the beginning", age_s=-1e308),
    _report(36, "more memory than there is", usage={"cpu_s": 1e300, "max_rss_kb": HUGE}),
    *(
        _key(37, f"{name}: true", keys, code, field)
        for name, keys, code, field in (
            ("retries", {"retries": True}, "not_an_integer", "retries"),
            ("cores", {"resources": {"compute": {"cpu": True}}}, "not_an_integer",
             "resources.compute.cpu"),
            ("memory", {"resources": {"compute": {"ram_gb": True}}}, "not_a_number",
             "resources.compute.ram_gb"),
        )
    ),
    _call(37, "true", True, "not_an_integer"),
    _limit(37, "true", "limits", {"max_cpu": True}, "int_type"),
    Case(family=37, name="priority: true", send="ada POST /experiments",
         json={"project": "spine", "document": sweep(), "priority": True}, code="invalid_int_type",
         field="priority"),
    Case(family=37, name="submit: 1", send="ada POST /experiments",
         json={"project": "spine", "document": sweep(), "submit": 1}, code="invalid_bool_type",
         field="submit"),
    Case(family=37, name="heartbeat: seq true", send="agent POST /heartbeat", json={"seq": True},
         code="invalid_int_type", field="seq"),
    Case(family=37, name="document: 5", send="ada POST /experiments",
         json={"project": "spine", "document": 5}, code="invalid_value_error", field="document"),
    Case(family=37, name="document: a list", send="ada POST /experiments",
         json={"project": "spine", "document": [sweep()]}, code="invalid_value_error",
         field="document"),
    _call(38, "arabic", "\u0661\u0662\u0663", "not_an_integer"),
    _call(38, "full width", "\uff11\uff12", "not_an_integer"),
    _call(38, "superscript", "1\u00b2", "not_an_integer"),
    _axes(38, "arabic", {"N": "\u0661..\u0663"}, "not_an_integer", "tasks.a.task_inputs.N"),
    _query(38, "/projects?limit=%D9%A1%D9%A2", "invalid_int_parsing"),
    _query(38, "/calls/{task}?wait=%D9%A3s", "invalid_duration"),
    Case(family=38, name="a version", send="ada GET /functions/heat@%D9%A1", status=404,
         code="function_not_found"),
    Case(family=38, name="a lease's attempt", send="agent GET /leases/{task}.%D9%A1." + "0" * 32,
         status=404, code="lease_unknown"),
    Case(family=38, name="log: a range", send=_LEASE_LOG, data=b"x",
         headers={"Content-Range": "bytes \u00b2-\u00b2/*", "Content-Digest": digest_header(b"x")},
         code="range_missing", field="Content-Range"),
    _token(38, expires_in="\u0663d"),
    _token(38, expires_at="\u0662027-01-01T00:00:00Z"),
    *(
        _token(39, expires_at=text)
        for text in (
            "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00", "2026-06-30T23:59:60Z",
            "2027-02-30T00:00:00Z", "2027-01-01T00:00:00", "2027-01-01", "10000-01-01T00:00:00Z",
            "tomorrow", "1e9", "-1",
        )
    ),
    *(
        _key(39, f"deadline {text}", {"placement": {"deadline": text}}, "bad_instant",
             "placement.deadline")
        for text in (
            "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00", "2026-06-30T23:59:60Z",
            "2026-12-01T08:00:00", "2026-02-30T00:00:00Z",
        )
    ),
    _query(39, "/audit?since=2026-06-30T23:59:60Z", "invalid_datetime_from_date_parsing"),
    _query(39, "/audit?since=2026-06-30T23:59:59", "invalid_time"),
    _query(39, "/audit?until=99999999999999999999", "invalid_value_error"),
    Case(family=39, name="audit until the end of time",
         send="ada GET /audit?until=9999-12-31T23:59:59-12:00", status=200),
    Case(family=39, name="audit since before the beginning",
         send="ada GET /audit?since=0001-01-01T00:00:00%2B14:00", status=200),
    *(
        _key(40, f"time {text!r}", {"resources": {"compute": {"time": text}}}, "bad_duration",
             "resources.compute.time")
        for text in (60, "60", "10:00", 45045, "1-00", "1:00:60", "-1m", "0s", "1e9h", "9999999d")
    ),
    _key(40, "a time of a day and an hour", {"resources": {"compute": {"time": "1-25:00:00"}}},
         "bad_duration", "resources.compute.time"),
    _call(40, "014", "014", "not_an_integer"),
    _call(40, "0x10", "0x10", "not_an_integer"),
    _call(40, "1_000", "1_000", "not_an_integer"),
    _query(40, "/calls/{task}?wait=60", "invalid_duration"),
    _query(40, "/calls/{task}?wait=-1s", "invalid_duration"),
    _query(40, "/calls/{task}?wait=nan", "invalid_duration"),
    _token(40, expires_in="60"),
    _token(40, expires_in="1e9h"),
    _token(40, expires_in="9" * 38 + "d"),
    _token(40, expires_in=60),
    _limit(40, "a time limit as a word", "limits", {"max_time_s": "60"}, "int_type"),
    Case(family=50, name="a document of 2 MiB is no bomb", send="ada POST /experiments",
         data=lambda: json.dumps({"project": "spine", "dry_run": True,
                                  "document": "name: x\ncommand: 'true'\n" + "# …\n" * 400_000}
                                 ).encode(), status=200),
)  # fmt: skip
