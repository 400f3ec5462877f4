"""A mutant: a patch that takes one mechanism out, and the tests that must notice it.

A file `NAME.patch` in this folder begins with lines `mechanism:`, `invariant:` and one `tests:` for
each test (a pytest node id); the unified diff against the tree follows.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent
_DIFF = "diff --git "
_NEW_FILE = "+++ b/"


class MutantMalformed(Exception):
    """The file of a mutant lacks a part of its header."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One mechanism, taken out."""

    name: str
    path: Path
    mechanism: str
    invariant: str
    tests: tuple[str, ...]
    files: tuple[str, ...]  # what the patch changes, relative to the root

    def applies(self, tree: Path, *, check: bool = False) -> str | None:
        """Apply it to the tree (`check`: only try); what git says where that is not possible."""
        done = subprocess.run(
            ["git", "apply", *(["--check"] if check else []), str(self.path)],
            cwd=tree,
            # A copy is in no repository: git must not find one further up and look there.
            env={**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)},
            capture_output=True,
            text=True,
            check=False,
        )
        return None if done.returncode == 0 else done.stderr.strip()


def read_mutant(path: Path) -> Mutant:
    """The mutant in a file. Raises MutantMalformed."""
    lines = path.read_text(encoding="utf-8").splitlines()
    said: dict[str, list[str]] = {"mechanism": [], "invariant": [], "tests": []}
    for line in lines:
        if line.startswith(_DIFF):
            break
        key, colon, value = line.partition(":")
        if colon and key in said and value.strip():
            said[key].append(value.strip())
    files = tuple(line.removeprefix(_NEW_FILE) for line in lines if line.startswith(_NEW_FILE))
    absent = [key for key, values in said.items() if not values] + ([] if files else ["a diff"])
    if absent:
        raise MutantMalformed(f"{path.name} lacks: {', '.join(absent)}")
    return Mutant(
        name=path.stem,
        path=path,
        mechanism=" ".join(said["mechanism"]),
        invariant=" ".join(said["invariant"]),
        tests=tuple(said["tests"]),
        files=files,
    )


def mutants() -> list[Mutant]:
    """Every mutant of this folder, by name."""
    return [read_mutant(path) for path in sorted(FOLDER.glob("*.patch"))]
