"""For a dry run: where the tasks would run now, and what stands in the way elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airavata_scheduler.functions import sites
from airavata_scheduler.models.node_spec import NodeSpec


def hints(nodes: Sequence[NodeSpec], compute: Sequence[str], project_id: str) -> dict[str, Any]:
    """For each compute resource that may run the experiment: whether it could now, and why not.

    `{"resources": [{name, kind, agents, eligible, reasons: [{node, code, detail, hint}]}]}`
    """
    return {
        "resources": [_hint(site, nodes) for site in sites.usable(compute, project_id)],
    }


def _hint(site: sites.Site, nodes: Sequence[NodeSpec]) -> dict[str, Any]:
    reasons = []
    for node in nodes:
        if node.compute and site.name not in node.compute:
            continue
        reason = site.obstacle(node.resources, node.features)
        if reason is not None:
            reasons.append({"node": node.name, **reason.shown()})
    return {
        "name": site.name,
        "kind": site.kind,
        "agents": len(site.present()),
        "eligible": not reasons,
        "reasons": reasons,
    }
