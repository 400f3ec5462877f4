"""Copies of the tree in which nothing but the copy's own code runs.

The package is installed editable, so the virtual environment names the tree that it belongs to, and
parts of the agent are started isolated (`python -I`), where no PYTHONPATH is heard. So each copy
has an environment of its own: links to the packages of ours, and files that named our tree written
again with the copy's name.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from tests.mutants.mutant import ROOT

_WHERE = """
import importlib.util, sys
for name in sys.argv[1:]:
    print(importlib.util.find_spec(name).origin)
"""


class WrongCode(Exception):
    """A copy would run code that is not its own."""


def tracked() -> list[Path]:
    """Files of the tree that git does not ignore, relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


def copy_tree(target: Path) -> None:
    """A copy of the tree in the new folder `target`, with an environment of its own."""
    for path in tracked():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, target / path, follow_symlinks=False)
    _make_environment(target)


def copy_again(source: Path, target: Path) -> None:
    """Another copy of a copy: what Python compiled there need not be compiled again."""
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns(".venv"))
    _make_environment(target)


def python_of(copy: Path) -> Path:
    """The interpreter whose code is the copy's."""
    return copy / ".venv" / "bin" / "python"


def forget_compiled(copy: Path, files: Iterable[str]) -> None:
    """Remove what was compiled from these files."""
    for file in files:
        path = copy / file
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()


def see_that_it_runs(copy: Path, files: Iterable[str]) -> None:
    """Raise WrongCode unless these files of the copy are what its interpreter imports, also
    isolated from the environment as the agent's children are."""
    modules = {_module(Path(file)): copy / file for file in files if file.endswith(".py")}
    for options in ([], ["-I"]):
        done = subprocess.run(
            [str(python_of(copy)), *options, "-c", _WHERE, *modules],
            cwd="/",
            check=True,
            capture_output=True,
            text=True,
        )
        found = dict(zip(modules, done.stdout.splitlines(), strict=True))
        for name, expected in modules.items():
            if Path(found[name]).resolve() != expected.resolve():
                raise WrongCode(f"{name} would be {found[name]}, not {expected}")


def _module(file: Path) -> str:
    return ".".join(("airavata_scheduler", *file.with_suffix("").parts))


def _make_environment(copy: Path) -> None:
    ours, theirs = Path(sys.prefix), copy / ".venv"
    packages = Path(sysconfig.get_path("purelib")).relative_to(ours)
    (theirs / packages).mkdir(parents=True)
    (theirs / "bin").mkdir()
    shutil.copy2(ours / "pyvenv.cfg", theirs / "pyvenv.cfg")
    for entry in (ours / packages).iterdir():
        # What is compiled there of the files that are written again would be ours.
        if entry.name != "__pycache__":
            _link(entry, theirs / packages / entry.name, copy, rewrite=_names_our_tree(entry))
    for entry in (ours / "bin").iterdir():
        _link(entry, theirs / "bin" / entry.name, copy, rewrite=_is_script(entry))


def _names_our_tree(entry: Path) -> bool:
    return entry.name.startswith("__editable__")


def _is_script(entry: Path) -> bool:
    if entry.is_symlink() or not entry.is_file():
        return False
    with entry.open("rb") as file:
        return file.read(2) == b"#!"


def _link(entry: Path, target: Path, copy: Path, *, rewrite: bool) -> None:
    if rewrite:
        text = entry.read_text(encoding="utf-8").replace(sys.prefix, str(copy / ".venv"))
        target.write_text(text.replace(str(ROOT), str(copy)), encoding="utf-8")
        target.chmod(entry.stat().st_mode)
    elif entry.is_symlink():
        # The interpreter finds its environment by its own name, so that is not followed.
        target.symlink_to(entry.readlink())
    else:
        target.symlink_to(entry)
