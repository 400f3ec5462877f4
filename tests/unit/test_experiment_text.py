"""The text of a document: YAML 1.2's core rules, and one clear refusal for everything else."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from airavata_scheduler.models.errors import AiravataError, BadInput, TooLarge
from airavata_scheduler.models.experiment_text import MAX_TEXT_BYTES, parse_text

CORPUS = yaml.safe_load((Path(__file__).parent / "bad_input_text.yml").read_text())


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case["name"])
def test_bad_text_is_refused_with_its_place(case: dict[str, Any]) -> None:
    """One BadInput with a stable code, and the line and column of the fault."""
    text = bytes.fromhex(case["bytes"]) if "bytes" in case else case["text"]

    with pytest.raises(BadInput) as refusal:
        parse_text(text, "json" if case.get("json") else "yaml")

    line, column = case["at"]
    assert refusal.value.code == case["code"]
    assert refusal.value.detail.endswith(f"(line {line}, column {column})")
    assert case.get("says", "") in refusal.value.detail
    assert refusal.value.detail.isprintable()


def test_core_rules() -> None:
    """Only what YAML 1.2 calls a number, a boolean or nothing is one; leading zeros stay text."""
    text = """
    a: 1:30:00
    b: no
    c: 014
    d: 0x1F
    e: 1e3
    f: ~
    g: 2026-12-01T08:00:00Z
    h: 1_000
    i: 0o14
    j: "5"
    k: True
    l: .5
    m: -0
    n:
    o: =
    p: '1.5'
    q: On
    r: +7
    s: "😀\\n"
    """

    parsed = parse_text(text)

    assert list(parsed.values()) == [
        *("1:30:00", "no", "014", 31, 1000.0, None, "2026-12-01T08:00:00Z", "1_000", 12, "5"),
        *(True, 0.5, 0, None, "=", "1.5", "On", 7, "😀\n"),
    ]


def test_json_and_yaml_of_one_document_are_equal() -> None:
    """JSON is accepted as JSON, and as YAML, with the same result."""
    document = {"a": [1, 2.5, None, True, "x\n"], "b": {"c": "é😀", "d": -0.0}}
    text = json.dumps(document)

    assert parse_text(text, "json") == document
    assert parse_text(text, "yaml") == document
    assert parse_text(text.encode(), "yaml") == document


def test_lines_of_keys_are_known() -> None:
    """Later faults can say on which line their key stands."""
    parsed = parse_text("a: 1\ntasks:\n  one:\n    timeout: 5\n  two:\n  - x: 1\n")

    assert parsed.lines["tasks.one.timeout"] == 4
    assert parsed.lines["tasks.two[0].x"] == 6


@pytest.mark.parametrize("fmt", ["yaml", "json"])
@pytest.mark.parametrize("depth", [65, 1100, 100_000])
def test_deep_nesting_is_refused(fmt: str, depth: int) -> None:
    """Depth never reaches the interpreter's recursion limit."""
    text = '{"a": ' * depth + "1" + "}" * depth

    with pytest.raises(BadInput) as refusal:
        parse_text(text, fmt)

    assert refusal.value.code == "too_deep"


def test_depth_64_is_read() -> None:
    """The limit itself is allowed, by both readers."""
    text = '{"a": ' * 64 + "1" + "}" * 64

    assert parse_text(text, "json") == parse_text(f" # yaml\n{text}", "yaml")


def test_a_document_above_4_mib_is_refused() -> None:
    """Size is checked before anything is read."""
    with pytest.raises(TooLarge) as refusal:
        parse_text("a: " + "x" * MAX_TEXT_BYTES)

    assert refusal.value.code == "document_too_large"


N = MAX_TEXT_BYTES
ATTACKS = {
    "open lists": "[" * N,
    "open mappings": "{" * N,
    "questions": "? " * (N // 2),
    "dashes": "- " * (N // 2),
    "list of dashes": "-\n" * (N // 2),
    "many values": "a: [" + "1," * (N // 2 - 3) + "]",
    "many keys": "".join(f"k{i}: 1\n" for i in range(350_000)),
    "long key": "a" * (N - 5) + ": b",
    "long lines": "a: " + "b\n " * (N // 3 - 5),
    "long quotes": 'a: "' + "b\n\n" * (N // 3 - 5) + '"',
    "escapes": 'a: "' + "\\x41" * (N // 4 - 5) + '"',
    "anchors": "&a " * (N // 3),
    "one long anchor": "&" + "a" * (N - 1),
    "tags": "!" * N,
    "directives": "%a b\n" * (N // 5),
    "documents": "---\n" * (N // 4),
    "empty lists": "a: [" + "[]," * (N // 3 - 5) + "]",
    "colons": "a: " * (N // 3),
    "digits": "a: " + "1" * (N - 5),
    "decimals": "a: 1." + "1" * (N - 9),
    "stairs": "".join(" " * i + "a:\n" for i in range(2000)),
    "comments": "#\n" * (N // 2),
    "strings": '{"' + '\\"' * (N // 2 - 5),
    "numbers": '{"a": ' + "9" * (N - 10) + "}",
    "bad end": '{"a": [' + '"x",' * (N // 4 - 5) + "NaN]}",
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("fmt", ["yaml", "json"])
def test_no_text_takes_long(name: str, fmt: str) -> None:
    """4 MiB of the worst that we know take a few seconds at most: nothing is quadratic."""
    began = time.process_time()

    try:
        parse_text(ATTACKS[name], fmt)
    except AiravataError as refusal:
        assert len(refusal.detail) < 500

    # One quadratic step over 4 MiB would take hours, so a generous limit proves as much.
    assert time.process_time() - began < 20
