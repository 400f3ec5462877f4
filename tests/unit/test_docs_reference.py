"""The reference pages are complete: settings, routes, codes, metrics, states, the agent."""

from __future__ import annotations

import ast
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from airavata_scheduler.agent.faults import Exit
from airavata_scheduler.commands.openapi import document
from airavata_scheduler.functions.naming import Kind
from airavata_scheduler.functions.route_table import ROUTES, Rule
from airavata_scheduler.models import schema
from airavata_scheduler.models.database import Dialect
from airavata_scheduler.models.errors import AiravataError
from tests.error_codes import codes_said
from tests.state_tables import tables

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[2]
SERVER_ROOMS = ("functions", "models", "backends", "queue")
# Said to nobody: it stops a program's start, or is the superclass of what is said.
NOT_ANSWERED = {"configuration"}


def page(name: str) -> str:
    """The text of one page of docs/."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """What stands below a heading, up to the next one."""
    return re.split(r"^#+ ", text.partition(f"\n{heading}\n")[2], maxsplit=1, flags=re.M)[0]


def rows(text: str) -> dict[str, str]:
    """The rows of the tables in a text: first cell, which is in backticks → the rest."""
    return dict(re.findall(r"^\| `([^`]+)` \|(.*)\|$", text, re.MULTILINE))


# Routes


def who(rule: Rule) -> str:
    """Who may call a route, as docs/api.md says it."""
    if rule.who != "user" or not rule.checks:
        return rule.who
    return ", ".join(
        f"{check.permission} {check.kind}" + (" if named" if check.place.endswith("?") else "")
        for check in rule.checks
    )


def test_every_route_is_documented() -> None:
    """Each row of the route table, with who may call it, and no other."""
    found = re.findall(
        r"^\| (GET|POST|PUT|PATCH|DELETE) \| `([^`]+)` \| ([^|]+) \| \S.* \|$",
        page("api.md"),
        re.MULTILINE,
    )

    assert {f"{method} {path}": name for method, path, name in found} == {
        name: who(rule) for name, rule in ROUTES.items()
    }


def test_the_openapi_file_is_fresh() -> None:
    """docs/openapi.json is what a server of this version serves; `make openapi` writes it."""
    assert json.loads(page("openapi.json")) == document()


# Codes


@pytest.fixture(scope="module")
def said() -> dict[str, set[str]]:
    """Every code that the server's rooms say, and who says it."""
    return codes_said(*SERVER_ROOMS)


def statuses() -> dict[str, int]:
    """The HTTP status of each error class by its name."""
    for room in SERVER_ROOMS:
        for path in sorted((ROOT / room).glob("*.py")):
            if path.stem not in {"wsgi", "gunicorn_config"}:
                importlib.import_module(f"airavata_scheduler.{room}.{path.stem}")

    def below(error: type[AiravataError]) -> Iterator[type[AiravataError]]:
        yield error
        for narrower in error.__subclasses__():
            yield from below(narrower)

    return {error.__name__: error.status for error in below(AiravataError)}


def test_every_code_is_documented(said: dict[str, set[str]]) -> None:
    """A program may meet no code that docs/api.md does not name; and it names no code of old."""
    text = page("api.md").partition("\n## Codes\n")[2]
    kinds = {f"{kind}_not_found" for kind in Kind.__args__ if kind != "system"}  # type: ignore[attr-defined]
    prose = set(re.findall(r"`([a-z_]+_not_found)`", section(text, "### Problems")))

    documented = set(rows(text)) | prose

    assert kinds <= prose
    assert set(said) - NOT_ANSWERED - documented == set()
    # `failed` is what `explain` says where a failure has no code.
    assert documented - set(said) - kinds - {"failed"} == set()


def test_codes_have_the_statuses_that_the_page_says(said: dict[str, set[str]]) -> None:
    """Each problem's row lists every status with which its code is answered."""
    known = statuses()
    problems = rows(section(page("api.md"), "### Problems"))
    faults = rows(section(page("api.md"), "### Faults of documents and arguments"))

    wrong = {}
    for code, speakers in said.items():
        answered = {known[name] for name in speakers if name in known}
        written = {int(found) for found in re.findall(r"\b\d{3}\b", problems.get(code, "")[:16])}
        if code in faults:
            written |= {422}
        if code not in NOT_ANSWERED and not answered <= written and not code.endswith("_not_found"):
            wrong[code] = (answered, written)

    assert wrong == {}


def test_reasons_and_timeline_stand_in_their_tables(said: dict[str, set[str]]) -> None:
    """The reasons of `explain` and the kinds of timeline lines."""
    text = page("api.md")
    reasons = {code for code, speakers in said.items() if "Reason" in speakers}
    kinds = {code for code, speakers in said.items() if "timeline" in speakers}

    assert set(rows(section(text, "### Reasons of `explain`"))) - {"failed"} == reasons
    assert set(rows(section(text, "### Lines of the timeline"))) == kinds


# Metrics


def metrics_of_the_code() -> dict[str, tuple[str, set[str]]]:
    """Each metric that functions/metrics.py makes: name as scraped, type, labels."""
    types = {"Counter": "counter", "Histogram": "histogram", "Gauge": "gauge"}
    found = {}
    for node in ast.walk(ast.parse((ROOT / "functions" / "metrics.py").read_text())):
        made = re.fullmatch(
            r"(Counter|Gauge|Histogram)(MetricFamily)?",
            ast.unparse(node.func) if isinstance(node, ast.Call) else "",
        )
        if made is None or not isinstance(node, ast.Call):
            continue
        name = ast.literal_eval(node.args[0])
        labels = next((item.value for item in node.keywords if item.arg == "labels"), None)
        if labels is None and len(node.args) > 2:
            labels = node.args[2]
        kind = types[made[1]]
        scraped = f"{name}_total" if kind == "counter" else name
        found[scraped] = (kind, set(ast.literal_eval(labels)) if labels is not None else set())
    return found


def test_every_metric_is_documented() -> None:
    """docs/metrics.md has each metric with its type and labels, and no other."""
    written = {}
    for name, rest in rows(page("metrics.md")).items():
        if name.startswith("scheduler_") and " " not in name:
            cells = [cell.strip() for cell in rest.split("|")]
            written[name] = (cells[0], set(re.findall(r"`(\w+)`", cells[1])))
            assert cells[2].endswith("."), name

    assert written == metrics_of_the_code()


def test_alerts_name_metrics_that_exist() -> None:
    """An alert on a metric of another name never fires."""
    alerts = page("metrics.md").partition("## What to alert on")[2]

    assert set(re.findall(r"scheduler_\w+", alerts)) <= set(metrics_of_the_code())


# States and schema


@pytest.mark.parametrize("heading", tables())
def test_the_tables_of_states_are_those_of_the_code(heading: str) -> None:
    """docs/states.md prints models/states.py: names, meanings, transitions."""
    assert tables()[heading] in section(page("states.md"), f"## {heading}")


@pytest.mark.parametrize(
    ("file", "dialect"), [("schema.sql", "postgresql"), ("schema.mysql.sql", "mysql")]
)
def test_the_schema_files_are_fresh(file: str, dialect: Dialect) -> None:
    """db/ has what the models say; `make schema` writes it."""
    assert (ROOT / "db" / file).read_text(encoding="utf-8") == schema.ddl(dialect)


# The agent


def test_every_verb_of_the_agent_is_documented() -> None:
    """docs/agent.md names each verb that `airavata-agent --help` lists, with its options."""
    source = (ROOT / "agent" / "verbs.py").read_text(encoding="utf-8")
    verbs = set(re.findall(r'add\("([a-z]+)", ', source))
    options = set(re.findall(r'add_argument\(\s*"(--[a-z-]+)"', source)) - {"--version"}
    text = page("agent.md")

    assert len(verbs) > 10
    assert {verb for verb in verbs if not re.search(rf"`(airavata-agent )?{verb}\b", text)} == set()
    assert {option for option in options if option not in text} == set()


def test_every_exit_code_of_the_agent_is_documented() -> None:
    """A supervisor may rely on them."""
    text = page("agent.md")

    assert {code for code in Exit if not re.search(rf"^\| {code.value} \| \S", text, re.M)} == set()


def test_every_variable_of_the_agent_is_documented() -> None:
    """What agent/settings.py and agent/transport.py read from the environment."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "agent").glob("*.py"))
    read = set(re.findall(r'environ(?:ment)?(?:\.get\(|\[)"([A-Z][A-Z_]+)"', source))
    cells = re.findall(r"^\| (`[A-Z][^|]*) \|", page("agent.md"), re.MULTILINE)

    assert "API_URL" in read
    assert read - set(re.findall(r"`([A-Z_]+)`", " ".join(cells))) == set()


def test_every_failure_code_of_the_agent_is_documented() -> None:
    """The codes that users see on failed attempts and operators on the agent's standard error."""
    text = page("agent.md")

    assert {code for code in codes_said("agent") if f"`{code}`" not in text} == set()


def test_every_key_of_the_policy_file_is_documented() -> None:
    """The owner's limits."""
    source = (ROOT / "agent" / "policy.py").read_text(encoding="utf-8")
    known = ast.literal_eval(re.search(r"^_KNOWN = ({.*?^})", source, re.M | re.S)[1])  # type: ignore[index]
    shown = set(re.findall(r"^([a-z_]+) = ", page("agent.md"), re.MULTILINE))

    assert shown == {key for keys in known.values() for key in keys}
