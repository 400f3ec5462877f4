"""The graph of an experiment's tasks: order, counts, and what each reference may read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from airavata_scheduler.models.faults import Faults, suggestion
from airavata_scheduler.models.node_spec import NodeSpec
from airavata_scheduler.models.paths import is_glob
from airavata_scheduler.models.sweep import Axis, axis_count, axis_values

MAX_HELD_VALUES = 1_000_000


def inherit(node: NodeSpec, parent: NodeSpec, explicit: set[str]) -> NodeSpec:
    """A `foreach` node with its parent instance's values for all that it does not set itself.

    So a plot knows the RATE of the simulation that it draws, and never shows a default for it.
    """
    taken = {*explicit, *node.outputs}
    axes = [_without(axis, taken) for axis in parent.axes]
    varying = {name for axis in axes for name in axis["names"]}
    shared = {name: value for name, value in parent.fixed.items() if name not in taken}
    defaults = {name: value for name, value in node.fixed.items() if name not in varying}
    known = {name: parent.parameters[name] for name in {*varying, *shared}}
    return replace(
        node,
        axes=[*axes, *node.axes],
        fixed={**defaults, **shared},
        parameters={**node.parameters, **known},
    )


def _without(axis: Axis, names: set[str]) -> Axis:
    """The axis with as many points, but without the values of `names`."""
    if names.isdisjoint(axis["names"]):
        return axis
    kept = [part for part in axis.get("axes", []) if part["names"][0] not in names]
    known = [part["names"][0] for part in kept]
    return {"kind": "zip", "names": known, "count": axis_count(axis), "axes": kept}


class Graph:
    """Checks a set of nodes; `ordered()` gives them complete, parents first.

    Every check notes its faults and goes on, so one run finds them all.
    """

    def __init__(
        self, faults: Faults, nodes: dict[str, NodeSpec], explicit: dict[str, set[str]]
    ) -> None:
        self.faults = faults
        self.nodes = nodes
        self.explicit = explicit  # node -> names that its own inputs set
        self.parents = {name: self._known_parents(node) for name, node in nodes.items()}
        self.order = self._sorted()
        self.totals: dict[str, int] = {}
        # Nodes that have ended as a whole before any instance of the key starts.
        self.finished: dict[str, set[str]] = {}
        # node -> {foreach ancestor: how many instances of node belong to one of the ancestor's}
        self.chains: dict[str, dict[str, int]] = {}
        for name in self.order:
            self._derive(nodes[name])

    def _known_parents(self, node: NodeSpec) -> list[str]:
        named = [("foreach", node.foreach)] if node.foreach is not None else []
        named += [("depends_on", parent) for parent in node.depends_on]
        known: list[str] = []
        for key, parent in named:
            where = f"tasks.{node.name}.{key}"
            if parent == node.name:
                self.faults.add(where, "cycle", f"{node.name} cannot wait for itself")
            elif parent not in self.nodes:
                detail = f'there is no task "{parent}"{suggestion(str(parent), self.nodes)}'
                self.faults.add(where, "unknown_task", detail)
            elif parent in known:
                detail = f"{parent} is named twice; foreach waits for its instances already"
                self.faults.add(where, "duplicate_parent", detail)
            else:
                known.append(str(parent))
        return known

    def _sorted(self) -> list[str]:
        """Parents first, else as in the file; nodes on a cycle are left out, with a fault."""
        order: list[str] = []
        placed: set[str] = set()
        waiting = list(self.nodes)
        while waiting:
            ready = [name for name in waiting if placed.issuperset(self.parents[name])]
            if not ready:
                cycle = self._cycle(waiting)
                path = " → ".join([*cycle, cycle[0]])
                self.faults.add(
                    f"tasks.{cycle[0]}", "cycle", f"these tasks wait in a circle: {path}"
                )
                break
            order += ready
            placed.update(ready)
            waiting = [name for name in waiting if name not in placed]
        return order

    def _cycle(self, waiting: list[str]) -> list[str]:
        """One circle among nodes of which each waits for another of them."""
        path = [waiting[0]]
        while True:
            step = next(parent for parent in self.parents[path[-1]] if parent in waiting)
            if step in path:
                return path[path.index(step) :]
            path.append(step)

    def _derive(self, node: NodeSpec) -> None:
        chain: dict[str, int] = {}
        finished: set[str] = set()
        parent = node.foreach if node.foreach in self.totals else None
        if parent is not None:
            chain = {parent: node.own}
            chain.update({name: n * node.own for name, n in self.chains[parent].items()})
            finished |= self.finished[parent]
        for barrier in node.depends_on:
            if barrier in self.totals:
                finished |= {barrier, *self.finished[barrier], *self.chains[barrier]}
        self.totals[node.name] = node.count(self.totals[parent] if parent is not None else 1)
        self.chains[node.name] = chain
        self.finished[node.name] = finished

    def ordered(self) -> list[NodeSpec]:
        """The nodes, parents first, with complete references and inherited values."""
        complete: dict[str, NodeSpec] = {}
        for name in self.order:
            node = self.nodes[name]
            references = [self._reference(node, entry) for entry in node.references]
            node = replace(node, references=references)
            # A Python function takes the arguments that were meant for it, and no others.
            if node.foreach in complete and node.kind == "script":
                node = inherit(node, complete[str(node.foreach)], self.explicit[name])
            complete[name] = node
        held = sum(axis_values(axis) for node in complete.values() for axis in node.axes)
        if held > MAX_HELD_VALUES:
            detail = (
                f"its lists and rows hold {held:,} values over all tasks, which inherit those of"
            )
            detail += f" their foreach parents; at most {MAX_HELD_VALUES:,} fit"
            self.faults.add("tasks", "too_many_values", detail)
        return list(complete.values())

    def _reference(self, node: NodeSpec, reference: dict[str, Any]) -> dict[str, Any]:
        source = self.nodes.get(reference["node"])
        where = f"tasks.{node.name}.task_inputs.{reference['parameter']}"
        if source is None:
            detail = f'there is no task "{reference["node"]}"'
            detail += suggestion(reference["node"], self.nodes)
            self.faults.add(where, "unknown_task", detail)
            return reference
        if reference["output"] not in source.outputs:
            detail = f'{source.name} declares no output "{reference["output"]}"'
            detail += suggestion(reference["output"], source.outputs)
            self.faults.add(where, "unknown_output", detail)
            return reference
        divisor = self._divisor(node, source, gather=reference["gather"], where=where)
        many = is_glob(source.outputs[reference["output"]])
        return {**reference, "many": many, "divisor": divisor}

    def _divisor(self, node: NodeSpec, source: NodeSpec, *, gather: bool, where: str) -> int:
        """Instance i of `node` reads instance i // divisor of `source`; 1 where that is a fault."""
        chain, ended = self.chains[node.name], source.name in self.finished[node.name]
        if gather and ended:
            return 1
        if gather:
            detail = f"[*] needs all instances of {source.name}, so the task must wait for them"
            self.faults.add(where, "not_ancestor", f"{detail}: depends_on: [{source.name}]")
        elif source.name in chain:
            return chain[source.name]
        elif ended and self.totals[source.name] == 1:
            return self.totals[node.name]  # every instance reads instance 0
        elif ended:
            count = f"{source.name} has {self.totals[source.name]} instances"
            detail = f"{count}; write foreach: [{source.name}] for one each, or [*] for all"
            self.faults.add(where, "ambiguous_reference", detail)
        else:
            detail = f"{source.name} need not have ended before {node.name} starts"
            detail += f"; add foreach: [{source.name}] or depends_on: [{source.name}]"
            self.faults.add(where, "not_ancestor", detail)
        return 1
