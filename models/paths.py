"""Paths that users declare: outputs, destinations and sources, all beneath a root.

The check is on the text alone and runs before anything is stored, so that no later program (an
agent's file system, a tar file, an object store, a browser) can read the same text as another
place. What the check lets through, the agent still opens beneath its root.
"""

from __future__ import annotations

import re
import unicodedata

from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.faults import shown

MAX_PATH_BYTES = 1024
MAX_PART_BYTES = 255
MAX_WILDCARDS = 8
# Inputs are staged here, so nothing else may be written here before the start.
INPUTS_FOLDER = "inputs"

_GLOB = re.compile(r"[*?\[\]]")
# %2e, %2f, %5c and %00, also encoded again (%252e): some store or proxy would decode them.
_ENCODED = re.compile(r"%(?:25)*(?:2e|2f|5c|00)", re.IGNORECASE)


def is_glob(pattern: str) -> bool:
    """Whether an output's pattern can match several files."""
    return _GLOB.search(pattern) is not None


def relative_path(text: object, *, globs: bool = False) -> str:
    """A path beneath a task's own directory, without `./` and doubled slashes.

    `globs` allows `*`, `?`, `[…]` and `**` as a whole part, at most `MAX_WILDCARDS` of them. A
    leading `-` is allowed: paths reach programs as environment variables, so scripts write
    `-- "$NAME"`.
    Raises BadInput with a code of the family `path_…`.
    """
    path = _checked_text(text)
    if path.startswith(("/", "~")):
        raise _bad("path_absolute", path, "must be relative to the task's own directory")
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if not parts:
        raise _bad("path_empty", path, "names no file")
    if path.endswith("/"):
        raise _bad("path_folder", path, "is a folder; name a file, or files with a pattern (out/*)")
    for part in parts:
        _check_part(part, path)
    _check_wildcards(parts, path, globs=globs)
    return "/".join(parts)


def destination_path(text: object) -> str:
    """Where a file is put before a task starts: relative, and not inside `inputs/`.

    A trailing slash (a folder) is dropped. Raises BadInput as `relative_path` does.
    """
    path = relative_path(
        text[:-1] if isinstance(text, str) and len(text) > 1 and text[-1] == "/" else text
    )
    if path.split("/")[0].casefold() == INPUTS_FOLDER:
        raise _bad("path_reserved", path, f"lies in {INPUTS_FOLDER}/, which staged inputs use")
    return path


def storage_path(text: object) -> tuple[str, bool]:
    """A path within a storage resource as (path with one leading slash, whether it is a folder).

    Raises BadInput as `relative_path` does.
    """
    path = _checked_text(text)
    parts = [part for part in path.split("/") if part not in {"", "."}]
    for part in parts:
        _check_part(part, path)
    _check_wildcards(parts, path, globs=False)
    return "/" + "/".join(parts), path.endswith("/") or not parts


def twin_key(path: str) -> str:
    """The same for two paths that one file system or another would take for one."""
    return unicodedata.normalize("NFKC", path).casefold()


def _checked_text(text: object) -> str:
    if not isinstance(text, str):
        raise BadInput(f"must be a path, not {shown(text)}", code="path_not_text")
    if not text.strip():
        raise BadInput("must be a path, not an empty text", code="path_empty")
    if len(text) > MAX_PATH_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_PATH_BYTES:
        raise _bad("path_too_long", text, f"is longer than {MAX_PATH_BYTES} bytes")
    # Cc control, Cf invisible (joiners, direction marks), Cs half a surrogate, Zl and Zp line ends
    if any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in text):
        raise _bad("path_control", text, "has control or invisible characters")
    if "\\" in text:
        raise _bad("path_backslash", text, "has a backslash; write / between folders")
    if _ENCODED.search(text):
        raise _bad("path_encoded", text, "has a percent-encoded dot or slash")
    return text


def _check_part(part: str, path: str) -> None:
    if part == "..":
        raise _bad("path_traversal", path, 'leads out of its folder by ".."')
    if len(part.encode("utf-8")) > MAX_PART_BYTES:
        raise _bad("path_too_long", path, f"has a name longer than {MAX_PART_BYTES} bytes")
    if part != part.strip():
        raise _bad("path_blank", path, "has a name that begins or ends with a blank")
    if unicodedata.normalize("NFC", part) != part:
        raise _bad("path_not_nfc", path, "is not in composed Unicode form (NFC)")
    compatible = unicodedata.normalize("NFKC", part)
    if compatible != part and (set("/\\~") & set(compatible) or set(compatible) <= {"."}):
        raise _bad("path_traversal", path, "has a character that other programs read as / or ..")


def _check_wildcards(parts: list[str], path: str, *, globs: bool) -> None:
    count = len(_GLOB.findall(path))
    if count and not globs:
        raise _bad("path_glob", path, "has a wildcard, which is allowed in outputs only")
    if count > MAX_WILDCARDS * 2 or path.count("*") > MAX_WILDCARDS:
        raise _bad("path_glob", path, f"has more than {MAX_WILDCARDS} wildcards")
    if any("**" in part and part != "**" for part in parts):
        raise _bad(
            "path_glob", path, "has ** beside other characters; it must be a whole folder name"
        )
    if parts and parts[-1] == "**":
        raise _bad("path_glob", path, "ends with **; name the files, as in **/*.csv")


def _bad(code: str, path: str, why: str) -> BadInput:
    return BadInput(f"{shown(path)} {why}", code=code)
