"""Settings: flag, environment, profile, default; and the profile file itself."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from airavata_scheduler.client.errors import BadInputError
from airavata_scheduler.client.profile import Profile, Settings, default_folder, write_profile


def test_flag_before_environment_before_profile(tmp_path: Path) -> None:
    """Each setting says where it came from."""
    Profile(folder=tmp_path).save(server="http://profile", project="from-profile")
    environ = {"AIRAVATA_CONFIG_DIR": str(tmp_path), "AIRAVATA_PROJECT": "from-environment"}

    plain = Settings.resolve(environ)
    flagged = Settings.resolve(environ, {"server": "http://flag", "project": "from-flag"})

    assert (plain.server, plain.sources["server"]) == ("http://profile", "profile")
    assert (plain.project, plain.sources["project"]) == ("from-environment", "environment")
    assert (flagged.server, flagged.project) == ("http://flag", "from-flag")


def test_without_anything_it_is_the_local_system(tmp_path: Path) -> None:
    """The default is what `airavata-scheduler local` listens on."""
    found = Settings.resolve({"HOME": str(tmp_path)})

    assert found.server == "http://127.0.0.1:8080"
    assert found.profile.folder == tmp_path / ".config" / "airavata"
    assert default_folder({"XDG_CONFIG_HOME": "/x"}) == Path("/x/airavata")


def test_an_address_without_scheme_is_refused(tmp_path: Path) -> None:
    """The sentence says where the address came from."""
    with pytest.raises(BadInputError, match="not the address") as caught:
        Settings.resolve({"HOME": str(tmp_path), "AIRAVATA_SERVER": "host:8080"})

    assert "environment" in str(caught.value.reason)


def test_the_file_is_private(tmp_path: Path) -> None:
    """0600 in a folder of 0700, whatever the umask."""
    path = write_profile(tmp_path / "new", server="http://x", access_token="a", refresh_token="r")

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert json.loads(path.read_text())["access_token"] == "a"


def test_another_server_drops_the_tokens(tmp_path: Path) -> None:
    """`config set server` must not show the old server's tokens to the new one."""
    write_profile(tmp_path, server="http://old", access_token="a", refresh_token="r", project="p")

    Profile(folder=tmp_path).save(server="http://new")

    assert Profile(folder=tmp_path).read() == {"server": "http://new", "project": "p"}


def test_a_broken_file_is_a_sentence(tmp_path: Path) -> None:
    """Not JSON: which file, and what to do."""
    (tmp_path / "profile.json").write_text("{")

    with pytest.raises(BadInputError, match="not valid JSON") as caught:
        Profile(folder=tmp_path).read()

    assert "rm " in str(caught.value.hint)
