"""The configuration: the guide's variables, ours, and what a malformed one says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.errors import ConfigurationError
from airavata_scheduler.models.settings import GUIDE_NAMES_READ_ELSEWHERE, SETTINGS

GUIDE = Path(__file__).parents[2] / "docs" / "configuration.md"
DURATIONS = [("30s", 30.0), ("168h", 604_800.0), ("1h30m", 5400.0), ("1.5s", 1.5), ("250ms", 0.25)]


def test_the_guides_values_are_read_as_they_stand() -> None:
    """A server starts with the deployment guide's own block of variables."""
    guide = {
        "DATABASE_URL": "user:password@tcp(localhost:3306)/airavata_scheduler?parseTime=true",
        "SERVER_PORT": "8080",
        "WORKER_INTERVAL": "30s",
        "JWT_SECRET_KEY": "your-secret-key-change-this-in-production",
        "JWT_ACCESS_TOKEN_TTL": "1h",
        "JWT_REFRESH_TOKEN_TTL": "168h",
        "RATE_LIMIT_ENABLED": "true",
        "MAX_REQUESTS_PER_MINUTE": "100",
        "REQUIRE_HTTPS": "false",
    }

    configuration = Configuration.read(guide, dotenv=None)

    configuration.require_jwt_secret()
    assert configuration.has_sample_jwt_secret
    assert configuration.worker_interval_s == 30.0
    assert configuration.jwt_refresh_token_ttl_s == 7 * 86_400
    assert configuration.max_requests_per_minute == 100
    assert configuration.agent_url == configuration.public_url == "http://localhost:8080"


@pytest.mark.parametrize(("text", "seconds"), DURATIONS)
def test_durations_are_go_style(text: str, seconds: float) -> None:
    """Durations carry their unit, as in the guide."""
    configuration = Configuration.read({"WORKER_INTERVAL": text}, dotenv=None)

    assert configuration.worker_interval_s == seconds


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SERVER_PORT", "eighty"),
        ("SERVER_PORT", "0"),
        ("SERVER_PORT", "٨٠٨٠"),
        ("WORKER_INTERVAL", "30"),
        ("WORKER_INTERVAL", "0s"),
        ("WORKER_INTERVAL", "30 s"),
        ("REQUIRE_HTTPS", "perhaps"),
        ("DATABASE_URL", "oracle://host/name"),
        ("REDIS_URL", "localhost:6379"),
        ("LOG_LEVEL", "loud"),
        ("PUBLIC_URL", "ftp://host"),
        ("API_GROUPS", "client,dashboards"),
        ("TLS_CERT_FILE", "/tmp/only-one.pem"),
        ("REQUEUE_AFTER", "1s"),
    ],
)
def test_a_malformed_value_stops_the_start_with_a_sentence(name: str, text: str) -> None:
    """The sentence begins with the variable's name."""
    with pytest.raises(ConfigurationError) as refused:
        Configuration.read({name: text}, dotenv=None)

    assert refused.value.detail.startswith(name)
    assert refused.value.detail.endswith(".")


def test_a_secret_value_is_not_repeated_in_the_error() -> None:
    """A malformed DATABASE_URL may hold a password."""
    with pytest.raises(ConfigurationError) as refused:
        Configuration.read({"DATABASE_URL": "scott:tiger-canary@host"}, dotenv=None)

    assert "tiger-canary" not in str(refused.value)


def test_the_environment_wins_over_dotenv(tmp_path: Path) -> None:
    """`.env` holds defaults; quotes, comments and `export` are understood."""
    dotenv = tmp_path / ".env"
    dotenv.write_text(
        '# Server\nexport SERVER_PORT="9000"\nREQUIRE_HTTPS="true"  # in production\n'
        "LOG_LEVEL=debug # x\n"
    )

    configuration = Configuration.read({"SERVER_PORT": "9100"}, dotenv=dotenv)

    assert configuration.server_port == 9100
    assert configuration.require_https is True
    assert configuration.log_level == "debug"


def test_a_misspelt_name_in_dotenv_stops_the_start(tmp_path: Path) -> None:
    """A near miss is refused with the name that was meant; other programs' names are let be."""
    dotenv = tmp_path / ".env"
    dotenv.write_text("POSTGRES_PASSWORD=x\nREQUIRE_HTTP=true\n")

    with pytest.raises(ConfigurationError) as refused:
        Configuration.read({}, dotenv=dotenv)

    assert refused.value.hint == "Did you mean REQUIRE_HTTPS?"


def test_a_line_that_is_no_assignment_is_named(tmp_path: Path) -> None:
    """A broken `.env` names its line."""
    dotenv = tmp_path / ".env"
    dotenv.write_text("SERVER_PORT=1\nthis is not one\n")

    with pytest.raises(ConfigurationError, match="line 2"):
        Configuration.read({}, dotenv=dotenv)


@pytest.mark.parametrize("secret", ["", "short", "a" * 31])
def test_tokens_are_never_signed_with_a_weak_key(secret: str) -> None:
    """An absent or short JWT_SECRET_KEY stops the server."""
    configuration = Configuration.read({"JWT_SECRET_KEY": secret}, dotenv=None)

    with pytest.raises(ConfigurationError, match="JWT_SECRET_KEY"):
        configuration.require_jwt_secret()


def test_the_sample_key_is_refused_in_production() -> None:
    """The guide's sample key is public, so REQUIRE_HTTPS=true refuses it."""
    configuration = Configuration.read(
        {"JWT_SECRET_KEY": "your-secret-key-change-this-in-production", "REQUIRE_HTTPS": "true"},
        dotenv=None,
    )

    with pytest.raises(ConfigurationError, match="sample"):
        configuration.require_jwt_secret()


def test_the_table_of_settings_is_complete() -> None:
    """Each attribute of Configuration has its setting, and each setting its attribute."""
    attributes = {field.name for field in dataclasses.fields(Configuration)}

    assert {setting.attribute for setting in SETTINGS} == attributes


@pytest.mark.docs
def test_every_setting_is_documented() -> None:
    """docs/configuration.md has a row for each setting, with its default and meaning."""
    page = GUIDE.read_text(encoding="utf-8")

    for setting in SETTINGS:
        shown = f"`{setting.default}`" if setting.default else "empty"
        assert f"| `{setting.name}` | {shown} | {setting.meaning} |" in page
    for name in GUIDE_NAMES_READ_ELSEWHERE:
        assert f"`{name}`" in page
