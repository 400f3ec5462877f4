"""NodeSpec: one node of an experiment's graph, complete and in the form that is stored.

A node is one record whatever the number of its instances: its axes say them all. What the rest of
the system reads from it is documented field by field here; `models.sweep` decodes instances.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class NodeSpec:
    """One node. All values are JSON-able; sizes are whole MiB, times seconds.

    An experiment's node has `count(total of its foreach parent)` instances, numbered from 0.
    """

    name: str
    kind: str = "script"  # or "python"
    script: str | None = None  # ready to run; None for python
    command_template: str | None = None  # what `script` was made of, for show
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)  # values that all instances share
    axes: list[dict[str, Any]] = field(default_factory=list)  # read by models.sweep only
    own: int = 1  # the product of the axes
    # {parameter, node, output, gather, many, divisor}: instance i reads instance i // divisor of
    # `node`, or all of them (gather); `many` says that the output is a pattern
    references: list[dict[str, Any]] = field(default_factory=list)
    foreach: str | None = None
    depends_on: list[str] = field(default_factory=list)  # barriers; the foreach parent is not here
    requires: str = "any"  # a barrier needs any or all instances of its parents to succeed
    outputs: dict[str, str] = field(default_factory=dict)  # NAME -> pattern
    retries: int = 0  # further tries after a failure of the task itself
    timeout_s: float | None = None
    # {node, cpu, ram_mb, gpu, disk_mb, vram_mb, time_s}; 0 means not said
    resources: dict[str, int] = field(default_factory=dict)
    stage_in: list[dict[str, Any]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)  # {destination, sha256, size}
    environment: dict[str, str] = field(default_factory=dict)  # expanded at the site
    software: dict[str, Any] = field(default_factory=dict)
    features: list[str] = field(default_factory=list)  # what an agent must offer for `software`
    python: dict[str, Any] | None = None
    compute: list[str] = field(default_factory=list)  # names; empty means any that fits

    def to_json(self) -> dict[str, Any]:
        """The stored form: every field under its name."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> NodeSpec:
        """A node from its stored form."""
        return cls(**stored)

    def count(self, parent_total: int = 1) -> int:
        """How many instances there are, where the `foreach` parent has `parent_total`."""
        return self.own * (parent_total if self.foreach is not None else 1)
