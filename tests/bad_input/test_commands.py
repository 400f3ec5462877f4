"""The corpus through `airavata`: a sentence with place, cause and next step; never a traceback."""

from __future__ import annotations

from pathlib import Path

from tests.bad_input.families.files import CASES, Typed
from tests.bad_input.judge import unseen
from tests.bad_input.world import FUNCTION
from tests.client_server import Ran, RunCommand, Served

# Three lines: what, why, what next. Each may hold a sentence of the server's.
MOST_LINES = 3
MOST_CHARS = 2_000


def test_every_file_and_argument_is_refused_with_a_sentence(
    served: Served, command: RunCommand, tmp_path: Path
) -> None:
    """No command meets an error of its own, and nothing is made."""
    made = served.ada.post("/functions", {"project": "spine", "name": "heat", "spec": FUNCTION})
    assert made.status_code == 201, made.text
    served.site()
    found = []
    for number, case in enumerate(CASES):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        found += [f"{case}: {fault}" for fault in _faults(case, _run(case, command, folder))]

    assert not found, "\n".join(found)
    names = [item["name"] for item in served.ada.get("/functions").json["items"]]
    assert names == ["heat"]
    assert served.ada.get("/experiments").json["items"] == []


def _run(case: Typed, command: RunCommand, folder: Path) -> Ran:
    file = folder / f"file{case.suffix}"
    file.write_bytes(case.text if isinstance(case.text, bytes) else case.text.encode())
    for name, text in case.beside.items():
        (folder / name).write_text(text)
    return command(*(word.replace("{file}", str(file)) for word in case.command))


def _faults(case: Typed, ran: Ran) -> list[str]:
    """What is wrong with what a command said."""
    said = ran.err
    found = []
    if ran.status not in (2, 4):
        found.append(f"ended with {ran.status}: {(said or ran.out)[:300]}")
    if "error of its own" in said or "Traceback" in said:
        found.append(f"met an error of its own: {said[:400]}")
    if any(unseen(line) for line in said.splitlines()):
        found.append(f"says something that cannot be seen: {said[:300]!r}")
    if len(said.splitlines()) > MOST_LINES or len(said) > MOST_CHARS:
        found.append(f"says {len(said)} characters in {len(said.splitlines())} lines: {said[:200]}")
    found += [f"does not say {words!r}: {said[:300]}" for words in case.says if words not in said]
    return found
