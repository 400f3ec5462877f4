"""What an agent is told about a lease: the node's specification once, the instance's values each.

A node never changes, so its part is made once in a process and kept.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from airavata_scheduler.models import sweep
from airavata_scheduler.models.lease_records import Grant
from airavata_scheduler.models.node_facts import NodeFacts, node_facts
from airavata_scheduler.models.parameters import environment_text

NODES_KEPT: Final = 2048


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """One node, ready to answer with: its specification and the decoder of its instances."""

    facts: NodeFacts
    document: dict[str, Any]
    decoder: sweep.Decoder
    is_python: bool


_prepared: OrderedDict[str, _Prepared] = OrderedDict()
_lock = threading.Lock()


def lease_document(grant: Grant) -> dict[str, Any]:
    """The lease as the agent gets it; `spec` names an entry of `spec_documents`."""
    node = _node(grant.node_id)
    arguments = None if grant.arguments is None else json.loads(grant.arguments)
    environment = node.decoder(grant.idx)
    if node.is_python:
        if arguments is None:
            typed = sweep.typed(node.facts.spec, grant.idx)
            arguments = {"encoding": "json", "data": typed}
    elif arguments is not None and arguments.get("encoding") == "json":
        # A call of a script: what the caller gave stands over the defaults, as environment.
        given = {name: environment_text(value) for name, value in arguments["data"].items()}
        environment = {**environment, **given, **node.facts.spec["outputs"]}
        arguments = None
    return {
        "lease": str(grant.lease),
        "task_id": grant.task_id,
        "experiment_id": grant.experiment_id,
        "name": f"{grant.node}[{grant.idx}]",
        "index": grant.idx,
        "attempt": grant.attempt,
        "gate": "open" if grant.gate_open else "closed",
        "spec": grant.node_id,
        "environment": environment,
        "arguments": arguments,
        "timeout_s": node.facts.timeout_s,
    }


def spec_documents(grants: list[Grant]) -> dict[str, dict[str, Any]]:
    """The specifications that these leases name, by their key."""
    return {grant.node_id: _node(grant.node_id).document for grant in grants}


def _node(node_id: str) -> _Prepared:
    with _lock:
        known = _prepared.get(node_id)
        if known is not None:
            _prepared.move_to_end(node_id)
            return known
    made = _prepare(node_facts(node_id))
    with _lock:
        _prepared[node_id] = made
        while len(_prepared) > NODES_KEPT:
            _prepared.popitem(last=False)
    return made


def _prepare(facts: NodeFacts) -> _Prepared:
    spec = facts.spec
    resources = spec.get("resources") or {}
    document: dict[str, Any] = {
        "kind": spec["kind"],
        "outputs": spec["outputs"],
        "environment": spec["environment"],
        "features": spec["features"],
        **{name: int(resources.get(name) or 0) for name in ("ram_mb", "gpu", "disk_mb")},
        "cpu": int(resources.get("cpu", 1)),
    }
    is_python = spec["kind"] == "python"
    if is_python:
        document["python"] = spec["python"]
    else:
        document["script"] = spec["script"]
    decoder = sweep.compile_decoder(spec)
    return _Prepared(facts=facts, document=document, decoder=decoder, is_python=is_python)
