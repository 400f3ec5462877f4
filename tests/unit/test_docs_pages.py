"""What is written is true: links lead somewhere, commands can be typed, examples can be read."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from airavata_scheduler.models.experiment_file import parse_text, read_experiment
from tests.command_trees import PROGRAMS, commands, untrue_commands

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[2]
ROOMS = ("agent", "backends", "client", "commands", "functions", "models", "queue")
_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_YAML = re.compile(r"^```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_MAKE = re.compile(r"(?<![\w-])make +([a-z][a-z-]*)")
_TARGET = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)
# A page names packages, never the host where they lie: its addresses are examples or this machine.
_ADDRESS = re.compile(r"https?://([A-Za-z0-9.-]+)")
_EXAMPLES = re.compile(r"localhost|127\.0\.0\.1|host|([a-z-]+\.)*example\.(org|com)")


def pages() -> list[Path]:
    """Every Markdown page of the work tree that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [ROOT / name for name in listed.stdout.split("\n") if name and (ROOT / name).is_file()]


PAGES = pages()
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """The anchors that a reader's program makes of a page's headings."""
    return {
        re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")
        for heading in _HEADING.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))
    }


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    """A relative link names a file of the repository, and an anchor a heading of that page."""
    lost = []
    for link in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        name, _, anchor = link.partition("#")
        target = page if not name else (page.parent / name).resolve()
        if "://" in link or link.startswith("mailto:"):
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)

    assert lost == []


@each_page
def test_commands_can_be_typed(page: Path) -> None:
    """Each `airavata …` and `airavata-scheduler …` of a page is in click's tree, options too."""
    assert untrue_commands(page.read_text(encoding="utf-8")) == []


@each_page
def test_make_targets_exist(page: Path) -> None:
    """Each `make …` of a page is a target of the Makefile."""
    targets = set(_TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
    code = "\n".join(
        re.findall(r"`[^`]+`|^```.*?^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    )

    assert set(_MAKE.findall(code)) <= targets


@each_page
def test_no_page_names_a_registry(page: Path) -> None:
    """Where packages come from is the reader's own setting."""
    hosts = set(_ADDRESS.findall(page.read_text(encoding="utf-8")))

    assert not [host for host in hosts if not _EXAMPLES.fullmatch(host)]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(text, id=f"{page.relative_to(ROOT)}:{number}")
        for page in PAGES
        if page.name != "experiments.md"  # test_experiment_docs.py reads those, with their files
        for number, text in enumerate(_YAML.findall(page.read_text(encoding="utf-8")))
        if re.search(r"^tasks:", text, re.MULTILINE)
    ],
)
def test_experiments_on_pages_can_be_read(text: str) -> None:
    """An experiment that a page shows runs as it is copied."""
    assert read_experiment(parse_text(text)).total > 0


@pytest.mark.parametrize("room", ROOMS)
def test_commands_in_hints_can_be_typed(room: str) -> None:
    """An error or a hint never sends its reader to a command that does not exist."""
    untrue = []
    for path in sorted((ROOT / room).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = _text_of(node)
            untrue += [f"{path.name}: {found}" for found in untrue_commands(text)]

    assert untrue == []


def _text_of(node: ast.AST) -> str:
    """The text of a literal; what an f-string fills in stands there as NAME."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "NAME"
            for part in node.values
        )
    return ""


@pytest.mark.parametrize(
    ("program", "page"), [("airavata", "cli.md"), ("airavata-scheduler", "operations.md")]
)
def test_every_command_is_documented(program: str, page: str) -> None:
    """Each command has its row on the page, with all its own options, and no other."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    rows = re.findall(rf"^\| `({program} [^`|]+)`[^|]*\| ([^|]*) \|", text, re.MULTILINE)
    words_of = {typed.words: set(typed.options) for typed in commands(program)}
    reference = text.partition("## Every command")[2]

    written = {
        words: set(re.findall(r"--[a-z-]+", options))
        for row, options in rows
        if f"| `{row}`" in reference
        and (words := tuple(word for word in row.split() if word.islower() or word == program))
    }

    assert written == words_of


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_command_says_what_it_does(program: str) -> None:
    """`--help` has a sentence for each command and each option."""
    assert [typed for typed in commands(program) if typed.silent] == []


def test_the_changelog_has_what_is_unreleased() -> None:
    """An operator reads first what the next version brings."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    assert re.search(r"^## Unreleased\n\n### (Added|Changed)", text, re.MULTILINE)
