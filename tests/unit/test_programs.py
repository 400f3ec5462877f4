"""Where the servers of `airavata-scheduler local` are looked for, and what is said without one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from airavata_scheduler.commands import programs
from airavata_scheduler.models.errors import ConfigurationError

SCRIPT = Path(__file__).parents[2] / "deploy" / "spicedb.sh"


def executable(path: Path) -> Path:
    """A program that does nothing, at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def spicedb_sh(cache: Path, *path: str) -> subprocess.CompletedProcess[str]:
    """Run the script with another cache folder and the system's PATH behind `path`."""
    return subprocess.run(
        [str(SCRIPT)],
        check=False,
        env={
            "PATH": os.pathsep.join([*path, "/usr/bin", "/bin"]),
            "HOME": str(cache),
            "XDG_CACHE_HOME": str(cache),
            "PYTHON": "/bin/false",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_script_and_program_mean_the_same_spicedb() -> None:
    """The version is pinned in both places."""
    assert f"version={programs.SPICEDB_VERSION} " in SCRIPT.read_text()


def test_a_spicedb_on_the_path_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was built before."""
    built = executable(tmp_path / f"airavata-scheduler/bin/spicedb@{programs.SPICEDB_VERSION}-go1")
    own = executable(tmp_path / "own" / "spicedb")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    monkeypatch.setenv("PATH", "")
    assert programs.spicedb_program() == str(built)
    monkeypatch.setenv("PATH", str(own.parent))
    assert programs.spicedb_program() == str(own)
    assert spicedb_sh(tmp_path).stdout == f"{built}\n"
    assert spicedb_sh(tmp_path, str(own.parent)).stdout == f"{own}\n"


def test_without_spicedb_the_way_to_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of another version does not count."""
    executable(tmp_path / "airavata-scheduler/bin/spicedb@v1.0.0-go1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")

    with pytest.raises(ConfigurationError) as refused:
        programs.spicedb_program()

    assert str(SCRIPT) in (refused.value.hint or "")


def test_without_go_the_script_says_so_in_a_sentence(tmp_path: Path) -> None:
    """Neither Go nor a Python that could install it: nothing is left behind."""
    done = spicedb_sh(tmp_path)

    assert done.returncode == 1
    assert "there is no Go 1.26.5 or newer on the PATH" in done.stderr
    assert [path.name for path in (tmp_path / "airavata-scheduler/bin").iterdir()] == [
        ".spicedb.lock"
    ]


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """The next step is another folder."""
    (tmp_path / "airavata-scheduler").write_text("a file")

    done = spicedb_sh(tmp_path)

    assert done.returncode == 1
    assert "set XDG_CACHE_HOME" in done.stderr


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("go: x: dial tcp: lookup proxy: no such host", "Is there a network"),
        ("write /x: no space left on device", "is full"),
    ],
)
def test_what_stops_a_build_is_said_in_a_sentence(tmp_path: Path, said: str, sentence: str) -> None:
    """No network, no space: cause and next step, and nothing is left behind."""
    go = executable(tmp_path / "own" / "go")
    go.write_text(
        f'#!/bin/sh\n[ "$1" = env ] && echo go1.26.8 && exit\necho "{said}" >&2\nexit 1\n'
    )

    done = spicedb_sh(tmp_path, str(go.parent))

    assert done.returncode == 1
    assert sentence in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "airavata-scheduler/bin").glob(".build*"))
