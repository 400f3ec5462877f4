"""Python functions on the warm pool of a real agent."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import pickle
import signal
import sys
import zipfile
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

from airavata_scheduler.agent import processes
from airavata_scheduler.agent.framing import read_json
from tests.agent_api import AgentApi
from tests.agent_process import AgentProcess
from tests.waiting import wait_until

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def _add(twin: AgentApi, source: str, data: Any = None, **more: Any) -> str:
    python = {"entry": "f", "source": source, "codec": more.pop("codec", "json")}
    python.update(more.pop("python", {}))
    return twin.add(python=python, arguments={"encoding": "json", "data": data or {}}, **more)


def _result(twin: AgentApi, task: str) -> dict[str, Any]:
    return twin.result(task) or {}


def test_values_go_in_and_out(twin: AgentApi, agent: AgentProcess) -> None:
    """JSON and pickle; what a call prints belongs to that call alone."""
    source = "def f(x, y=1):\n    print('x is', x)\n    return {'sum': x + y}\n"
    plain = _add(twin, source, {"x": 20, "y": 22})
    pickled = twin.add(
        python={"entry": "f", "source": "def f(*a, **k):\n return a, k\n", "codec": "pickle"},
        arguments={
            "encoding": "pickle",
            "data": base64.b64encode(pickle.dumps(((1, {2}), {"z": 3j}))).decode(),
        },
    )
    quiet = _add(twin, "def f():\n    return None\n")

    agent.start()
    agent.done()

    assert _result(twin, plain)["result"] == {"encoding": "json", "data": {"sum": 42}}
    log = _result(twin, plain)["logs"]["stdout"]
    assert base64.b64decode(log["data"]) == b"x is 20\n"
    raw = base64.b64decode(_result(twin, pickled)["result"]["data"])
    assert pickle.loads(raw) == ((1, {2}), {"z": 3j})
    assert _result(twin, quiet)["logs"] == {}


def test_exceptions_come_back_with_their_traceback(twin: AgentApi, agent: AgentProcess) -> None:
    """The user's own lines are in the traceback; with pickle the exception itself comes too."""
    source = "def g(x):\n    return 1 / x\n\ndef f(x):\n    return g(x)\n"
    plain = _add(twin, source, {"x": 0})
    pickled = _add(twin, source, {"x": 0}, codec="pickle")

    agent.start()
    agent.done()

    failure = _result(twin, plain)["failure"]
    assert (failure["kind"], failure["code"]) == ("user", "function_raised")
    assert failure["message"] == "ZeroDivisionError: division by zero"
    assert "return 1 / x" in failure["traceback"]
    assert "<airavata_function>" in failure["traceback"].splitlines()[1]
    raw = base64.b64decode(_result(twin, pickled)["result"]["data"])
    assert isinstance(pickle.loads(raw), ZeroDivisionError)


def test_source_that_does_not_load_says_why(twin: AgentApi, agent: AgentProcess) -> None:
    """A syntax error, a missing import and a missing name fail the call with a sentence."""
    tasks = [
        _add(twin, "def f(:\n"),
        _add(twin, "import no_such_module\ndef f(): pass\n"),
        _add(twin, "def g(): pass\n"),
    ]

    agent.start()
    agent.done()

    messages = [_result(twin, task)["failure"]["message"] for task in tasks]
    assert "SyntaxError" in messages[0]
    assert "no_such_module" in messages[1]
    assert "'f'" in messages[2]


def test_a_call_has_a_time_limit_and_others_go_on(twin: AgentApi, agent: AgentProcess) -> None:
    """A busy call is stopped at its limit; the calls behind it run elsewhere, each once."""
    source = (
        "import time\n"
        f"def f(n, s):\n    open({str(agent.ledger)!r}, 'a').write(f'{{n}}\\n')\n"
        "    end = time.monotonic() + s\n"
        "    while time.monotonic() < end: pass\n    return n\n"
    )
    quick = [_add(twin, source, {"n": n, "s": 0}, timeout_s=5.0) for n in range(5)]
    slow = _add(twin, source, {"n": 99, "s": 60}, timeout_s=1.0)
    more = [_add(twin, source, {"n": n, "s": 0}, timeout_s=5.0) for n in range(5, 10)]

    agent.start()
    agent.done()

    assert _result(twin, slow)["failure"]["code"] == "timeout"
    assert [_result(twin, t)["result"]["data"] for t in quick + more] == list(range(10))
    assert sorted(agent.lines(), key=int) == [*map(str, range(10)), "99"]


def test_a_running_call_can_be_cancelled(twin: AgentApi, agent: AgentProcess) -> None:
    """Cancel ends the worker that is in the call; a call that waits is simply withdrawn."""
    agent.home.mkdir(mode=0o700)
    (agent.home / "policy.ini").write_text("[limits]\nmax_cpu = 1\n")
    source = (
        "import time\n"
        f"def f():\n    open({str(agent.ledger)!r}, 'a').write('ran\\n')\n    time.sleep(300)\n"
    )
    task = _add(twin, source)
    agent.start()
    wait_until(agent.lines, message="the call's start")

    twin.cancel(task)
    agent.done()

    assert _result(twin, task)["outcome"] == "cancelled"
    after = _add(twin, "def f():\n    return 1\n")
    agent.done()
    assert _result(twin, after)["outcome"] == "completed"


def test_a_call_is_cancelled_while_its_worker_starts(twin: AgentApi, agent: AgentProcess) -> None:
    """Nobody listens yet when the cancel comes; the call is taken back before it begins."""
    agent.start()
    wait_until(lambda: "connected to" in agent.log.read_text(), message="the session")
    shepherd = agent.shepherd_pid()
    os.kill(shepherd, signal.SIGSTOP)
    try:
        task = _add(twin, f"def f():\n    open({str(agent.ledger)!r}, 'a').write('ran\\n')\n")
        wait_until(lambda: list(agent.home.glob("pool/*")), message="the worker's order")
        twin.cancel(task)
        wait_until(lambda: "cancelled" in agent.log.read_text(), message="the cancel")
    finally:
        os.kill(shepherd, signal.SIGCONT)
    agent.done()

    assert _result(twin, task)["outcome"] == "cancelled"
    assert agent.lines() == []


def test_a_worker_that_dies_takes_only_its_call_along(twin: AgentApi, agent: AgentProcess) -> None:
    """os._exit and a segmentation fault fail the call that did it, and no other."""
    exits = _add(twin, "import os\ndef f():\n    os._exit(5)\n")
    crash = _add(twin, "import os\ndef f():\n    os.kill(os.getpid(), 11)\n")
    fine = [_add(twin, "def f(n):\n    return n\n", {"n": n}) for n in range(20)]

    agent.start()
    agent.done()

    assert _result(twin, exits)["failure"]["code"] == "exit_nonzero"
    assert _result(twin, exits)["exit_code"] == 5
    assert (_result(twin, crash)["failure"]["code"], _result(twin, crash)["signal"]) == (
        "signal",
        11,
    )
    assert [_result(twin, t)["result"]["data"] for t in fine] == list(range(20))


def test_a_killed_worker_is_lost_and_the_others_run_once(
    twin: AgentApi, agent: AgentProcess
) -> None:
    """kill -9 of a worker: the begun call is lost (another attempt follows), none runs twice."""
    agent.home.mkdir(mode=0o700)
    (agent.home / "policy.ini").write_text("[limits]\nmax_cpu = 1\n")
    source = (
        "import time\n"
        f"def f(n):\n    open({str(agent.ledger)!r}, 'a').write(f'{{n}}\\n')\n"
        "    time.sleep(1.0 if n == 0 else 0)\n    return n\n"
    )
    first = _add(twin, source, {"n": 0})
    agent.start()
    wait_until(agent.lines, message="the call's start")

    worker = next(agent.home.glob("pool/*/worker.json"))
    os.kill((read_json(worker) or {})["pid"], signal.SIGKILL)
    wait_until(lambda: twin.tasks[first].reports, message="the report")
    agent.done()

    assert twin.tasks[first].reports[0]["outcome"] == "lost"
    assert _result(twin, first)["outcome"] == "completed"
    assert twin.tasks[first].attempt == 2


def test_large_results_become_artifacts(twin: AgentApi, agent: AgentProcess) -> None:
    """Above the limit the result is a file called __result__."""
    task = _add(twin, "def f():\n    return 'x' * 200000\n")

    agent.start()
    agent.done()

    result = _result(twin, task)
    assert [a["output"] for a in result["artifacts"]] == ["__result__"]
    path = result["artifacts"][0]["path"]
    assert result["result"]["artifact"] == path
    data = twin.files[result["lease"], "__result__", path]
    assert json.loads(data) == "x" * 200000


def test_files_of_a_call_stay_its_own(twin: AgentApi, agent: AgentProcess) -> None:
    """Each call begins in an empty directory; declared outputs are uploaded."""
    source = (
        "import os\n"
        "def f(n):\n    before = os.listdir('.')\n    open('out.txt', 'w').write(str(n))\n"
        "    return before\n"
    )
    tasks = [_add(twin, source, {"n": n}, outputs={"O": "out.txt"}) for n in range(3)]

    agent.start()
    agent.done()

    for number, task in enumerate(tasks):
        result = _result(twin, task)
        assert result["result"]["data"] == []
        assert twin.files[result["lease"], "O", "out.txt"] == str(number).encode()


def test_bundles_carry_their_own_unpickler(twin: AgentApi, agent: AgentProcess) -> None:
    """A closure travels as a zip with cloudpickle inside; it is downloaded once."""
    factor = 7
    python = _bundle(twin, lambda x: x * factor, HERE)
    arguments = base64.b64encode(pickle.dumps(((6,), {}))).decode()
    tasks = [
        twin.add(python=python, arguments={"encoding": "pickle", "data": arguments})
        for _ in range(3)
    ]

    agent.start()
    agent.done()

    for task in tasks:
        raw = base64.b64decode(_result(twin, task)["result"]["data"])
        assert pickle.loads(raw) == 42
    assert len([1 for _, path, _ in twin.calls if path.startswith("/blobs/")]) == 1


def test_another_python_is_refused_with_a_sentence(twin: AgentApi, agent: AgentProcess) -> None:
    """Said by the spec or found in the bundle: python_mismatch, and what to do."""
    said = _add(twin, "def f(): pass\n", python={"requires_python": "3.6"})
    found = twin.add(python=_bundle(twin, lambda: 1, "3.6"), arguments=None)

    agent.start()
    agent.done()

    for task in (said, found):
        result = _result(twin, task)
        assert (result["outcome"], result["failure"]["code"]) == ("refused", "python_mismatch")
        assert "3.6" in result["failure"]["message"]


def test_the_owner_can_forbid_functions(twin: AgentApi, agent: AgentProcess) -> None:
    """[allow] python = no: refused with the reason; the server cannot change that."""
    agent.home.mkdir(mode=0o700)
    (agent.home / "policy.ini").write_text("[allow]\npython = no\n")
    task = _add(twin, "def f(): pass\n")

    agent.start()
    agent.done()

    result = _result(twin, task)
    assert (result["outcome"], result["failure"]["code"]) == ("refused", "policy_refused")


def _bundle(twin: AgentApi, function: Any, python: str) -> dict[str, Any]:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("bundle.json", json.dumps({"entry": "function.pickle", "python": python}))
        archive.writestr("function.pickle", cloudpickle.dumps(function))
        for source in sorted(Path(cloudpickle.__file__).parent.glob("*.py")):
            archive.write(source, f"cloudpickle/{source.name}")
    raw = data.getvalue()
    sha256 = hashlib.sha256(raw).hexdigest()
    twin.blobs[sha256] = raw
    return {"entry": "f", "blob": {"sha256": sha256, "size": len(raw)}, "codec": "pickle"}


def test_no_process_outlives_an_agent_that_was_drained(twin: AgentApi, agent: AgentProcess) -> None:
    """Warm processes wait for calls, the shepherd for payloads, only while there is an agent."""
    _add(twin, "def f():\n    return 1\n")
    agent.start()
    agent.done()
    workers = [read_json(path) or {} for path in agent.home.glob("pool/*/worker.json")]
    shepherd = agent.shepherd_pid()

    agent.signal(signal.SIGTERM)
    agent.wait()

    assert len(workers) == 1
    for worker in workers:
        wait_until(
            lambda w=worker: not processes.is_alive(w["pid"], w["ticks"]),  # type: ignore[misc]
            message="the worker's end",
        )
    wait_until(lambda: processes.start_ticks(shepherd) is None, message="the shepherd's end")
