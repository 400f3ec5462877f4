"""What agents send and fetch: reports, logs, artifacts, inputs, blobs; and nobody else's (I8)."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from airavata_scheduler.models import epoch
from airavata_scheduler.models.tables import Artifact, Attempt, Log, Node, StorageResource, Task
from tests.api import Api
from tests.wire_agent import BASE, Wire, artifact_item, completed, settle
from tests.work import sweep

DATA = b"1,2\n3,4\n"


@pytest.fixture
def wire(api: Api) -> Wire:
    """An enrolled agent with a session."""
    return Wire.enrolled(api)


def one_lease(wire: Wire, document: dict[str, Any] | None = None) -> str:
    """The name of a claimed lease of a new experiment."""
    wire.submit(document or sweep("1..1"))
    lease: str = wire.claim(1)["leases"][0]["lease"]
    return lease


def words(items: list[dict[str, Any]]) -> list[str]:
    """The verdicts."""
    return [item["verdict"] for item in items]


def test_one_bad_item_blocks_nothing(wire: Wire) -> None:
    """Items that are malformed, foreign or senseless get their verdict, the others are taken."""
    wire.submit(sweep("1..4"))
    good, nul, deep, unsent = (lease["lease"] for lease in wire.claim(4)["leases"])
    nested: Any = "x"
    for _ in range(80):
        nested = [nested]
    items = [
        completed(good),
        17,
        {"lease": "x"},
        completed("not.a.lease"),
        {**completed(nul), "outcome": "failed", "failure": {"message": "bytes \x00 and \ud800"}},
        completed(deep, result={"encoding": "json", "data": nested}),
        completed(unsent, artifacts=[artifact_item("RESULT", "result.csv", DATA)]),
    ]
    answer = wire.report(*items)

    assert words(answer) == [
        *("accepted", "invalid", "invalid", "gone", "accepted", "accepted", "invalid")
    ]
    assert "outcome" in answer[2]["message"]
    assert "upload_missing" in answer[6]["message"]
    stored = Attempt.get(Attempt.lease_id == nul.split(".")[2]).message
    assert stored is not None
    assert "\x00" not in stored


def test_results_that_cannot_be_stored(wire: Wire) -> None:
    """NaN, a result beyond 64 KiB, bent base64 and long inline logs are invalid, not errors."""
    wire.submit(sweep("1..4"))
    leases = [lease["lease"] for lease in wire.claim(4)["leases"]]
    items = [
        completed(leases[0], result={"encoding": "json", "data": float("nan")}),
        completed(leases[1], result={"encoding": "json", "data": "x" * 70_000}),
        completed(leases[2], logs={"stdout": {"size": 3, "data": "*"}}),
        completed(
            leases[3],
            logs={"stdout": {"size": 1, "data": base64.b64encode(b"x" * 8193).decode()}},
        ),
    ]
    answer = wire.call(
        "POST",
        "/reports",
        data=json.dumps({"items": items}),
        headers={"Content-Type": "application/json"},
    )

    assert answer.status_code == 200, answer.text
    assert words(answer.json["items"]) == ["invalid"] * 4


def test_duplicate_and_conflicting_reports(wire: Wire) -> None:
    """The same report again is a duplicate; another one is a conflict, and the first stays."""
    lease = one_lease(wire)
    answers = [
        wire.report(completed(lease)),
        wire.report(completed(lease)),
        wire.report({**completed(lease), "outcome": "failed", "exit_code": 3}),
    ]

    assert [words(answer)[0] for answer in answers] == ["accepted", "duplicate", "conflict"]
    assert wire.owner.get(f"/tasks/{lease.split('.')[0]}").json["state"] == "COMPLETED"


def test_a_report_brings_new_work(wire: Wire) -> None:
    """The answer to a report carries a claim's answer; a wrong claim costs the verdicts nothing."""
    wire.submit(sweep("1..3"))
    first = wire.claim(1)["leases"][0]
    body = {"items": [completed(first)], "claim": wire.claim_body(1)}
    answer = wire.ok("POST", "/reports", body)
    second = answer["claim"]["leases"][0]
    spoilt = wire.ok("POST", "/reports", {"items": [completed(second)], "claim": {"seq": "x"}})

    assert words(answer["items"]) == ["accepted"]
    assert words(spoilt["items"]) == ["accepted"]
    assert spoilt["claim"] is None


def test_a_report_before_its_start(wire: Wire) -> None:
    """Reordered: the lease is current, so the result is accepted; the late start says finished."""
    lease = one_lease(wire)

    assert words(wire.report(completed(lease))) == ["accepted"]
    assert words(wire.start(lease)) == ["finished"]


def test_a_failure_keeps_the_end_of_its_traceback(wire: Wire) -> None:
    """The message is followed by the last lines of the traceback, which say what happened."""
    lease = one_lease(wire)
    failure = {
        "kind": "user",
        "code": "function_raised",
        "message": "ValueError: bad",
        "traceback": "x" * 20_000 + "the last line",
    }
    wire.report({**completed(lease), "outcome": "failed", "failure": failure})

    stored = Attempt.get().message
    assert stored is not None
    assert stored.startswith("ValueError: bad\n")
    assert stored.endswith("the last line")


def test_short_logs_come_with_the_report(wire: Wire) -> None:
    """A log of at most 8 KiB is stored inline and read back."""
    lease = one_lease(wire)
    text = base64.b64encode(b"hello\n").decode()
    wire.report(completed(lease, logs={"stdout": {"size": 6, "data": text}}))

    task = lease.split(".")[0]
    assert wire.owner.get(f"/tasks/{task}/logs/stdout").data == b"hello\n"


def test_a_log_resumes_where_it_stands(wire: Wire) -> None:
    """Chunks in order are stored once each; a gap is told where to go on; gzip is understood."""
    lease = one_lease(wire)
    first = wire.patch_log(lease, 0, b"hello ")
    again = wire.patch_log(lease, 0, b"hello ")
    gap = wire.patch_log(lease, 100, b"lost")
    packed = gzip.compress(b"world\n")
    digest = base64.b64encode(hashlib.sha256(b"world\n").digest()).decode()
    third = wire.call(
        "PATCH",
        f"/leases/{lease}/log/stdout",
        data=packed,
        headers={
            "Content-Range": "bytes 6-11/*",
            "Content-Digest": f"sha-256=:{digest}:",
            "Content-Encoding": "gzip",
        },
    )

    answers = [(a.status_code, a.json) for a in (first, again, gap, third)]
    assert answers == [
        (202, {"offset": 6}),
        (202, {"offset": 6}),
        (416, {"offset": 6}),
        (202, {"offset": 12}),
    ]
    task = lease.split(".")[0]
    assert wire.owner.get(f"/tasks/{task}/logs/stdout").data == b"hello world\n"
    assert Log.get().size == 12


def test_chunks_that_are_not_what_they_say(wire: Wire) -> None:
    """A wrong digest, range or stream, and no digest at all, store nothing."""
    lease = one_lease(wire)
    refused = [
        wire.patch_log(lease, 0, b"abc", **{"Content-Digest": "sha-256=:" + "A" * 43 + "=:"}),
        wire.patch_log(lease, 0, b"abc", **{"Content-Range": "bytes 0-7/*"}),
        wire.patch_log(lease, 0, b"abc", **{"Content-Range": "bytes 5-2/*"}),
        wire.patch_log(lease, 0, b"abc", **{"Content-Range": "chunks"}),
        wire.patch_log(lease, 0, b"abc", **{"Content-Digest": ""}),
        wire.patch_log(lease, 0, b"abc", stream="../x"),
        wire.patch_log(lease, 0, b"abc", stream="stdin"),
        wire.patch_log(lease, 2**40, b"abc"),
    ]

    assert {answer.status_code for answer in refused} <= {404, 413, 422}
    assert Log.select().count() == 0


def test_artifacts_are_staged_and_published_by_the_report(wire: Wire) -> None:
    """An uploaded file is there for nobody until its report was accepted; twice is once."""
    lease = one_lease(wire)
    first = wire.put_artifact(lease, "RESULT", "result.csv", DATA)
    again = wire.put_artifact(lease, "RESULT", "result.csv", DATA)
    task = lease.split(".")[0]
    before = wire.owner.get(f"/tasks/{task}/artifacts").json["items"]
    item = completed(lease, artifacts=[artifact_item("RESULT", "result.csv", DATA)])
    verdict = wire.report(item)[0]["verdict"]
    after = wire.owner.get(f"/tasks/{task}/artifacts").json["items"]

    assert (first.status_code, again.status_code, before) == (201, 200, [])
    assert first.json == {"size": len(DATA), "sha256": hashlib.sha256(DATA).hexdigest()}
    assert verdict == "accepted"
    content = wire.owner.get(f"/artifacts/{after[0]['id']}/content")
    assert content.data == DATA


def test_other_bytes_for_the_same_path_replace_the_first(wire: Wire) -> None:
    """Until the report an upload may be corrected; the report must name what is there."""
    lease = one_lease(wire)
    wire.put_artifact(lease, "RESULT", "result.csv", b"draft")
    wire.put_artifact(lease, "RESULT", "result.csv", DATA)
    old = completed(lease, artifacts=[artifact_item("RESULT", "result.csv", b"draft")])
    new = completed(lease, artifacts=[artifact_item("RESULT", "result.csv", DATA)])

    assert words(wire.report(old)) == ["invalid"]
    assert words(wire.report(new)) == ["accepted"]
    assert Artifact.select().count() == 1


def test_an_upload_that_the_database_forgot_is_taken_up_by_its_report(wire: Wire) -> None:
    """A failover lost its row, and the agent's copy may be gone: the storage has the bytes (I3)."""
    lease = one_lease(wire)
    wire.put_artifact(lease, "RESULT", "result.csv", DATA)
    Artifact.delete().execute()
    item = completed(lease, artifacts=[artifact_item("RESULT", "result.csv", DATA)])

    assert words(wire.report(item)) == ["accepted"]
    found = wire.owner.get(f"/tasks/{lease.split('.')[0]}/artifacts").json["items"]
    assert wire.owner.get(f"/artifacts/{found[0]['id']}/content").data == DATA


def test_an_upload_that_never_came_is_not_taken_up(wire: Wire) -> None:
    """Nothing there, another size there, or a path that can lead nowhere: that item is invalid."""
    wire.submit(sweep("1..5"))
    good, none, other, outside, empty = (one["lease"] for one in wire.claim(5)["leases"])
    wire.put_artifact(other, "RESULT", "result.csv", b"draft")
    wire.put_artifact(good, "RESULT", "result.csv", DATA)
    Artifact.delete().execute()
    items = [
        completed(outside, artifacts=[artifact_item("RESULT", "../../x", DATA)]),
        completed(none, artifacts=[artifact_item("RESULT", "result.csv", DATA)]),
        completed(other, artifacts=[artifact_item("RESULT", "result.csv", DATA)]),
        completed(empty, artifacts=[artifact_item("RESULT", "a\0b", DATA)]),
        completed(good, artifacts=[artifact_item("RESULT", "result.csv", DATA)]),
    ]

    assert words(wire.report(*items)) == ["invalid"] * 4 + ["accepted"]
    assert Artifact.select().count() == 1


def test_two_attempts_never_write_the_same_place(wire: Wire) -> None:
    """An older attempt's upload that still runs cannot end up in a newer one's file."""
    older = one_lease(wire)
    wire.put_artifact(older, "RESULT", "result.csv", b"older")
    wire.ok("POST", "/leases/release", {"leases": [older], "reason": "drain"})
    Task.update(available_at=0).execute()
    newer = wire.claim(1)["leases"][0]["lease"]
    wire.put_artifact(newer, "RESULT", "result.csv", DATA)

    places = [(row.lease_id, row.storage_key) for row in Artifact.select()]

    assert {lease for lease, _ in places} == {text.split(".")[2] for text in (older, newer)}
    assert len({place for _, place in places}) == 2


def test_uploads_to_forbidden_places(wire: Wire) -> None:
    """Paths that leave the attempt's folder, and bytes with another digest, are refused."""
    lease = one_lease(wire)
    for path in ("../../x", "/etc/passwd", "a//b", "a/../b", "x\n", "\u2024\u2024/b", "n" * 300):
        answer = wire.put_artifact(lease, "RESULT", path, DATA)
        assert answer.status_code == 422, path
    bent = wire.call(
        "PUT",
        f"/leases/{lease}/artifacts?output=RESULT&path=x",
        data=DATA,
        headers={"Content-Digest": f"sha-256=:{base64.b64encode(b'0' * 32).decode()}:"},
    )

    assert (bent.status_code, bent.json["code"]) == (422, "digest_mismatch")
    assert Artifact.select().count() == 0


def chain() -> dict[str, Any]:
    """Two simulations, a plot of each, and a report over all plots."""
    return {
        "name": "chain",
        "parameters": {"SEED": {"type": "int"}},
        "scripts": {"SIMULATE": "true\n", "PLOT": "true\n", "REPORT": "true\n"},
        "tasks": {
            "simulate": {
                "script": "SIMULATE",
                "task_inputs": {"SEED": "1..2"},
                "task_outputs": {"RESULT": "out/result.csv", "FRAMES": "frames/*.png"},
            },
            "plot": {
                "script": "PLOT",
                "foreach": ["simulate"],
                "task_inputs": {
                    "INPUT": "${simulate.RESULT}",
                    "PICTURES": "${simulate.FRAMES}",
                },
                "task_outputs": {"PICTURE": "plot.png"},
            },
            "report": {
                "script": "REPORT",
                "depends_on": ["plot"],
                "task_inputs": {"ALL": "${plot.PICTURE[*]}"},
            },
        },
    }


def finish_with(wire: Wire, lease: str, files: dict[tuple[str, str], bytes]) -> None:
    """Upload files by (output, path) and report success."""
    for (output, path), data in files.items():
        assert wire.put_artifact(lease, output, path, data).status_code == 201
    items = [artifact_item(output, path, data) for (output, path), data in files.items()]
    assert words(wire.report(completed(lease, artifacts=items))) == ["accepted"]


def fetched(wire: Wire, item: dict[str, Any]) -> dict[str, bytes]:
    """The inputs of one start's item, fetched by their addresses, by path."""
    found = {}
    for one in item["inputs"]:
        answer = wire.call("GET", one["url"])
        assert answer.status_code == 200, answer.text
        assert len(answer.data) == one["size"]
        assert one["version"]
        found[one["path"]] = answer.data
    return found


def test_outputs_become_inputs(wire: Wire) -> None:
    """A file, the matches of a pattern and gathered files stand where the variables say."""
    wire.submit(chain())
    for lease in wire.claim(2)["leases"]:
        seed = lease["environment"]["SEED"]
        files = {
            ("RESULT", "out/result.csv"): f"r{seed}".encode(),
            ("FRAMES", "frames/a.png"): f"a{seed}".encode(),
            ("FRAMES", "frames/b.png"): f"b{seed}".encode(),
        }
        finish_with(wire, lease["lease"], files)
    plots = wire.claim(2)["leases"]
    items = wire.start(*(lease["lease"] for lease in plots))
    second = fetched(wire, items[1])
    for lease in plots:
        finish_with(wire, lease["lease"], {("PICTURE", "plot.png"): lease["name"].encode()})

    settle()
    report = wire.claim(1)["leases"][0]
    gathered = wire.start(report["lease"])[0]

    assert {lease["gate"] for lease in plots} == {"closed"}
    assert items[1]["parameters"] == {
        "INPUT": "inputs/INPUT/result.csv",
        "PICTURES": "inputs/PICTURES",
    }
    assert second == {
        "inputs/INPUT/result.csv": b"r2",
        "inputs/PICTURES/a.png": b"a2",
        "inputs/PICTURES/b.png": b"b2",
    }
    assert gathered["parameters"] == {"ALL": "inputs/ALL"}
    assert fetched(wire, gathered) == {
        "inputs/ALL/0-plot.png": b"plot[0]",
        "inputs/ALL/1-plot.png": b"plot[1]",
    }


def staged(api: Api, folder: Path) -> dict[str, Any]:
    """An experiment that stages a file and a folder of the storage resource `scratch`."""
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "run.py").write_bytes(b"print(1)")
    (folder / "data" / "deep").mkdir(parents=True)
    (folder / "data" / "a.txt").write_bytes(b"A")
    (folder / "data" / "deep" / "b.txt").write_bytes(b"B")
    admin = api.admin()
    body = {"name": "scratch", "kind": "NFS", "location": {"path": str(folder)}}
    answer = admin.post("/storage-resources", body)
    assert answer.status_code == 201, answer.text
    document = sweep("1..1")
    document["resources"] = {
        "storage": ["scratch:/code/run.py:./run.py", "scratch:/data/:./data/"],
    }
    return document


def test_staged_data_arrives(wire: Wire, tmp_path: Path) -> None:
    """A file and a whole folder of a storage resource are listed and can be fetched."""
    lease = one_lease(wire, staged(wire.api, tmp_path / "scratch"))
    item = wire.start(lease)[0]

    assert fetched(wire, item) == {
        "run.py": b"print(1)",
        "data/a.txt": b"A",
        "data/deep/b.txt": b"B",
    }


def test_missing_inputs_are_told_when_fetched(wire: Wire, tmp_path: Path) -> None:
    """A file or folder that is not there is a 404 with a sentence at its address."""
    document = staged(wire.api, tmp_path / "scratch")
    document["resources"]["storage"] = ["scratch:/no.txt:./no.txt", "scratch:/none/:./none/"]
    lease = one_lease(wire, document)
    answers = [wire.call("GET", one["url"]) for one in wire.start(lease)[0]["inputs"]]

    assert [(a.status_code, a.json["code"]) for a in answers] == [(404, "input_missing")] * 2


def test_one_tasks_storage_does_not_hold_up_the_others(wire: Wire, tmp_path: Path) -> None:
    """Where it was disabled its inputs are absent; where it is away its task has no answer yet."""
    staging = one_lease(wire, staged(wire.api, tmp_path / "scratch"))
    plain = one_lease(wire)
    scratch = StorageResource.name == "scratch"

    StorageResource.update(state="disabled").where(scratch).execute()
    refused, other = wire.start(staging, plain)
    assert (refused["verdict"], other["verdict"]) == ("ok", "ok")
    answers = [wire.call("GET", one["url"]) for one in refused["inputs"]]
    assert [(a.status_code, a.json["code"]) for a in answers] == [(404, "input_missing")] * 2

    StorageResource.update(state="active", kind="SFTP", version=2).where(scratch).execute()
    assert [item["lease"] for item in wire.start(staging, plain)] == [plain]

    StorageResource.update(kind="NFS", version=3).where(scratch).execute()
    again, _ = wire.start(staging, plain)
    assert fetched(wire, again)["data/a.txt"] == b"A"


def test_a_storage_resource_that_is_renamed_is_still_the_same_one(
    wire: Wire, tmp_path: Path
) -> None:
    """What has its name since then holds other data, which nobody asked for."""
    lease = one_lease(wire, staged(wire.api, tmp_path / "scratch"))
    (tmp_path / "other" / "data").mkdir(parents=True)
    (tmp_path / "other" / "data" / "a.txt").write_bytes(b"not this")
    admin = wire.api.admin()
    StorageResource.update(name="old").where(StorageResource.name == "scratch").execute()
    body = {"name": "scratch", "kind": "NFS", "location": {"path": str(tmp_path / "other")}}
    assert admin.post("/storage-resources", body).status_code == 201

    assert fetched(wire, wire.start(lease)[0])["data/a.txt"] == b"A"


def test_files_sent_along_are_blobs(wire: Wire) -> None:
    """A file of the user's machine is fetched as a blob, by the lease that needs it only."""
    owner = wire.owner
    wire.api.project(owner)
    sha256 = hashlib.sha256(DATA).hexdigest()
    other = hashlib.sha256(b"other").hexdigest()
    for digest, data in ((sha256, DATA), (other, b"other")):
        assert owner.put(f"/projects/spine/blobs/{digest}", data=data).status_code == 201
    document = sweep("1..1", files=["params.csv"])
    answer = owner.post(
        "/experiments",
        {
            "project": "spine",
            "document": document,
            "submit": True,
            "files": {"params.csv": {"sha256": sha256, "size": len(DATA)}},
        },
    )
    assert answer.status_code == 201, answer.text

    settle()
    lease = wire.claim(1)["leases"][0]["lease"]
    item = wire.start(lease)[0]

    assert fetched(wire, item) == {"params.csv": DATA}
    assert item["inputs"][0]["version"] == sha256
    assert wire.call("GET", f"/blobs/{other}?lease={lease}").status_code == 404


def test_an_agent_reaches_only_what_its_leases_hold(wire: Wire, tmp_path: Path) -> None:
    """I8, as a matrix: with every address and lease of another agent an agent gets 404 or 403."""
    lease = one_lease(wire, staged(wire.api, tmp_path / "scratch"))
    urls = [one["url"] for one in wire.start(lease)[0]["inputs"]]
    thief = wire.beside()
    own = one_lease(thief)
    refused = {
        "log": thief.patch_log(lease, 0, b"x"),
        "artifact": thief.put_artifact(lease, "RESULT", "result.csv", DATA),
        "input": thief.call("GET", urls[0]),
        "blob": thief.call("GET", f"/blobs/{'0' * 64}?lease={lease}"),
        # Another lease's signature under one's own lease, and other data under a good one.
        "moved": thief.call("GET", urls[0].replace(lease, own)),
        "bent": wire.call("GET", urls[0].replace("of=0", "of=1")),
    }
    forged = wire.report(completed(own))[0], thief.report(completed(lease))[0]

    assert {name: answer.status_code for name, answer in refused.items()} == {
        "log": 404,
        "artifact": 404,
        "input": 404,
        "blob": 404,
        "moved": 403,
        "bent": 403,
    }
    assert {item["verdict"] for item in forged} <= {"superseded", "gone"}
    assert Artifact.select().count() == Log.select().count() == 0


def test_a_lease_that_the_database_forgot_is_asked_for_first(wire: Wire) -> None:
    """After a failover that lost the claim nothing is refused for good: the agent's list comes."""
    lease = one_lease(wire)
    Task.update(state=1, attempt=0, lease_id=None, agent_id=None, session_id=None).execute()
    Task.update(leased_at=None, created_at=Task.created_at - 60_000).execute()
    Node.update(queued=1, leased=0).execute()
    epoch.bump("restored from a backup")
    before = wire.put_artifact(lease, "RESULT", "result.csv", DATA), wire.patch_log(lease, 0, b"x")
    wire.heartbeat(full=[{"lease": lease, "phase": "running"}])
    after = wire.put_artifact(lease, "RESULT", "result.csv", DATA), wire.patch_log(lease, 0, b"x")

    assert [(a.status_code, a.json["code"]) for a in before] == [(503, "lease_unsettled")] * 2
    assert {a.headers["Retry-After"] for a in before} == {"1"}
    assert [a.status_code for a in after] == [201, 202]


def test_what_ended_takes_nothing_more(wire: Wire) -> None:
    """After the accepted report neither log nor artifact of the lease is taken."""
    lease = one_lease(wire)
    wire.report(completed(lease))
    log, file = wire.patch_log(lease, 0, b"x"), wire.put_artifact(lease, "R", "r", b"x")

    assert (log.status_code, log.json["code"]) == (409, "lease_finished")
    assert (file.status_code, file.json["code"]) == (409, "lease_finished")


def test_a_lease_that_went_back_may_still_deliver(wire: Wire) -> None:
    """A lapsed lease that nobody claimed since may upload and report (I2); afterwards not."""
    wire.submit(sweep("1..1"))
    lease = wire.claim(1)["leases"][0]["lease"]

    Task.update(state=1, session_id=None, available_at=0).execute()

    assert wire.patch_log(lease, 0, b"late").status_code == 202
    other = wire.beside()
    assert len(other.claim(1)["leases"]) == 1
    assert wire.patch_log(lease, 4, b"x").status_code == 404
    assert words(wire.report(completed(lease))) == ["superseded"]


def test_an_older_attempt_of_the_same_agent_is_fenced(wire: Wire) -> None:
    """The same agent with a newer attempt of the task: its older lease may write nothing."""
    older = one_lease(wire, sweep("1..1"))
    wire.ok("POST", "/leases/release", {"leases": [older], "reason": "drain"})
    Task.update(available_at=0).execute()
    newer = wire.claim(1)["leases"][0]["lease"]
    answers = [wire.patch_log(older, 0, b"x"), wire.put_artifact(older, "R", "r", b"x")]

    assert newer.split(".")[0] == older.split(".")[0]
    assert [(a.status_code, a.json["code"]) for a in answers] == [(409, "lease_superseded")] * 2
    assert wire.patch_log(newer, 0, b"x").status_code == 202


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_a_store_that_is_away(wire: Wire) -> None:
    """Where the storage cannot be written an upload is answered 503, to be tried again."""
    lease = one_lease(wire)
    StorageResource.update(
        location={"path": "/proc/none"}, version=StorageResource.version + 1
    ).execute()
    answer = wire.put_artifact(lease, "RESULT", "result.csv", DATA)

    assert answer.status_code == 503, answer.text
    assert "Retry-After" in answer.headers


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_addresses_begin_with_the_agents_base(wire: Wire, tmp_path: Path) -> None:
    """Addresses of inputs are relative to the API's host."""
    lease = one_lease(wire, staged(wire.api, tmp_path / "scratch"))

    assert all(one["url"].startswith(BASE + "/") for one in wire.start(lease)[0]["inputs"])
