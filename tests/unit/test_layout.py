"""The layout of the repository: traps that imports would spring later."""

from __future__ import annotations

import configparser
import queue
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "airavata_scheduler."
# Folders that hold Python files and are no part of the installed program.
NOT_INSTALLED = {"tests", "examples", "benchmarks", "docs", "build", "dist", "ansible", "deploy"}


def setup_options() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def tracked_python_files() -> list[Path]:
    """Python files of the work tree that git does not ignore, relative to the root."""
    return tracked_files("*.py")


def tracked_files(pattern: str) -> list[Path]:
    """Files of the work tree that git does not ignore, relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", pattern],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [Path(line) for line in listed.stdout.splitlines() if (ROOT / line).exists()]


def test_packages_are_the_folders_on_disk() -> None:
    """A folder that setup.cfg forgets works when editable and is missing from the wheel."""
    packages = setup_options()["options"]["packages"].split()

    folders = {
        PACKAGE + ".".join(path.parent.parts)
        for path in tracked_python_files()
        if len(path.parts) > 1 and path.parts[0] not in NOT_INSTALLED
    }

    assert folders == set(packages)
    assert packages == sorted(packages)


def test_files_that_the_code_reads_are_in_the_wheel() -> None:
    """Policies, SpiceDB's schema, the installer: what package_data forgets is missing there."""
    parser = setup_options()
    rooms = {name.removeprefix(PACKAGE) for name in parser["options"]["packages"].split()}
    patterns = parser["options.package_data"]

    left_out = [
        str(path)
        for path in tracked_files("*/*")
        if len(path.parts) == 2
        and path.parts[0] in rooms
        and path.suffix not in {".py", ".md"}
        and not any(
            path.match(f"{path.parts[0]}/{pattern}")
            for pattern in patterns.get(PACKAGE + path.parts[0], "").split(", ")
        )
    ]

    assert left_out == []


def test_each_package_has_its_folder() -> None:
    """package_dir maps every package to the folder of its short name."""
    options = setup_options()["options"]

    mapped = dict(line.split(" = ") for line in options["package_dir"].split("\n") if line)

    assert mapped == {name: name.removeprefix(PACKAGE) for name in options["packages"].split()}


def test_no_room_is_a_package_of_its_own() -> None:
    """An `__init__.py` in queue/ would shadow the standard library's queue for `python -m`."""
    rooms = {name.removeprefix(PACKAGE) for name in setup_options()["options"]["packages"].split()}

    assert [room for room in sorted(rooms) if (ROOT / room / "__init__.py").exists()] == []
    assert not (ROOT / "__init__.py").exists()


def test_the_standard_librarys_queue_is_found_from_the_root() -> None:
    """`python -c` in the repository's root, which puts it first on the path."""
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import queue; print(queue.__file__)"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout

    assert Path(found.strip()) == Path(queue.__file__)


def test_each_room_has_a_door() -> None:
    """A README.md of about ten lines says what comes in, what goes out, what to read first."""
    rooms = [name.removeprefix(PACKAGE) for name in setup_options()["options"]["packages"].split()]

    doors = {room: ROOT / room / "README.md" for room in rooms if (ROOT / room).is_dir()}

    assert [room for room, door in doors.items() if not door.exists()] == []
    for room, door in doors.items():
        assert 4 <= len(door.read_text(encoding="utf-8").splitlines()) <= 25, room


def test_modules_stay_readable() -> None:
    """No module of the program grows beyond what one reads in a sitting."""
    rooms = {name.removeprefix(PACKAGE) for name in setup_options()["options"]["packages"].split()}

    long = {
        str(path): count
        for path in tracked_python_files()
        if path.parts[0] in rooms
        and (count := len((ROOT / path).read_text(encoding="utf-8").splitlines())) > 400
    }

    assert long == {}
