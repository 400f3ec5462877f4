"""Declared paths: whatever another program would read as another place is refused."""

from __future__ import annotations

import pytest

from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.paths import (
    destination_path,
    is_glob,
    relative_path,
    storage_path,
    twin_key,
)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        *(("result.csv", "result.csv"), ("./out//a.csv", "out/a.csv"), ("-rf", "-rf")),
        *(("a b/c.txt", "a b/c.txt"), ("é.csv", "é.csv"), ("...", "..."), ("a..b", "a..b")),
        *(("out/*.png", "out/*.png"), ("**/*.csv", "**/*.csv"), ("r[0-9].csv", "r[0-9].csv")),
        *(("100%.csv", "100%.csv"), (".hidden", ".hidden"), ("x" * 255, "x" * 255)),
    ],
)
def test_paths_that_are_safe(text: str, path: str) -> None:
    """Relative paths and patterns, in their shortest form."""
    assert relative_path(text, globs=True) == path


@pytest.mark.parametrize(
    "text",
    [
        *("../x", "a/../b", "..", "/etc/passwd", "//x", "~/x", "~root", "", " ", ".", "./", "a/"),
        *("..%2fx", "..%252Fx", "%2e%2e/x", "a%00b", "a%5cb", "a\\b", "..\\x", "C:\\x"),
        *("a\0b", "a\nb", "a\rb", "a\x1b[31mb", "a\x7fb", "a\u202eb", "a\u200db", "a\u2028b"),
        *("\uff0fetc", "a\uff0fb", "\u2024\u2024/x", "\uff0e\uff0e/x", "\u2025/x", "e\u0301.csv"),
        *(
            "x" * 256,
            "é" * 128,
            "a/" * 600 + "b",
            "a /b",
            " a",
            "a\u00a0",
            "\ud800",
            "**a/b",
            "a/**",
        ),
        *("*" * 9, "a/*/*/*/*/*/*/*/*/*", None, 5, ["a"]),
    ],
)
def test_paths_that_are_refused(text: object) -> None:
    """Traversal in every disguise, control characters, twins and unending names."""
    with pytest.raises(BadInput) as refusal:
        relative_path(text, globs=True)

    assert refusal.value.code.startswith("path_")
    assert refusal.value.detail.isprintable()


def test_a_destination_is_no_pattern_and_not_in_the_inputs_folder() -> None:
    """Files are put at one place each, and never over staged inputs."""
    for text in ("a*.py", "inputs/x", "Inputs/x", "inputs"):
        with pytest.raises(BadInput):
            destination_path(text)

    assert destination_path("./lib/") == "lib"


def test_paths_within_a_storage_resource() -> None:
    """Rooted at the resource, with a trailing slash for a folder."""
    assert storage_path("/code/simulate.py") == ("/code/simulate.py", False)
    assert storage_path("code/") == ("/code", True)
    for text in ("/../x", "/a/*", "/proc\0"):
        with pytest.raises(BadInput):
            storage_path(text)


def test_twins_have_one_key() -> None:
    """Names that differ in case or Unicode form only are one place on some file systems."""
    assert twin_key("Result.CSV") == twin_key("result.csv")
    assert twin_key("\u00e9") == twin_key("e\u0301")
    assert is_glob("a?.csv") and not is_glob("a.csv")
