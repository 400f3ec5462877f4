"""A task's name as people write it: `my-sweep/simulate[17]`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from airavata_scheduler.client.errors import BadInputError

_NAME = re.compile(r"(?P<experiment>[^/]+)/(?P<node>[^/\[\]]+)(?:\[(?P<index>[0-9]{1,18})\])?")


@dataclass(frozen=True, kw_only=True)
class TaskName:
    """An instance of a task of an experiment; `index` counts from 0."""

    experiment: str
    node: str
    index: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read EXPERIMENT/NODE[INDEX]; without [INDEX] it is instance 0.

        Raises `BadInputError`.
        """
        match = _NAME.fullmatch(text)
        if match is None:
            raise BadInputError(
                f"“{text}” does not name a task.",
                hint="Write a task's id, or EXPERIMENT/TASK[INDEX] such as my-sweep/simulate[17].",
            )
        index = int(match["index"] or 0)
        return cls(experiment=match["experiment"], node=match["node"], index=index)
