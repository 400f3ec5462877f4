"""What users put into files and on the command line: experiment and function files, arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

EXPERIMENT = ("experiment", "submit", "{file}")
DRY_RUN = ("experiment", "run", "{file}", "--dry-run")
FUNCTION = ("function", "register", "{file}")


@dataclass(frozen=True, kw_only=True)
class Typed:
    """One command; `text` is the file that it names, and `beside` are files in its folder.

    `says` must stand in the message: the place of the fault, as far as there is one.
    """

    family: int
    name: str
    command: tuple[str, ...]
    text: str | bytes = b""
    suffix: str = ".yml"
    beside: Mapping[str, str] = field(default_factory=dict)
    says: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As a failure shows it."""
        return f"family {self.family}, {self.name}: airavata {' '.join(self.command[:2])}"


def _function(family: int, name: str, text: str, *says: str, suffix: str = ".yml") -> Typed:
    return Typed(family=family, name=name, command=FUNCTION, text=text, suffix=suffix, says=says)


def _experiment(family: int, name: str, text: str | bytes, *says: str) -> Typed:
    return Typed(family=family, name=name, command=DRY_RUN, text=text, says=says)


def _arguments(family: int, name: str, *arguments: str, says: str) -> Typed:
    return Typed(
        family=family,
        name=name,
        command=("function", "call", "heat", *arguments),
        says=(says,),
    )


def _lines(family: int, name: str, text: str | bytes, *says: str) -> Typed:
    return Typed(
        family=family,
        name=name,
        command=("function", "map", "heat", "--inputs", "{file}"),
        text=text,
        suffix=".jsonl",
        says=says,
    )


_JSON = '{"name": "f", "command": "true", %s}'
_PARAMETER = _JSON % '"parameters": {"A": {"type": "float", "default": %s}}'
_LONG = "x" * 300

CASES = (
    _experiment(1, "a file above", "name: x\ncommand: 'true'\nfiles: [../up.py]\n", "files"),
    _experiment(2, "an absolute file", "name: x\ncommand: 'true'\nfiles: [/etc/passwd]\n", "files"),
    _experiment(4, "a file with a NUL", 'name: x\ncommand: \'true\'\nfiles: ["a\\0b"]\n', "files"),
    _experiment(5, "a file in red", 'name: x\ncommand: \'true\'\nfiles: ["\\e[31mred"]\n', "files"),
    _experiment(6, "a file's name of 300 letters", f"name: x\ncommand: a\nfiles: [{_LONG}]\n",
                "files", "is not a file beside"),
    _experiment(6, "a table's name of 300 letters", f"name: x\ncommand: a\nrows: {_LONG}\n", "rows",
                "is not a file beside"),
    _function(6, "a file's name of 300 letters", f"name: f\ncommand: a\nfiles: [{_LONG}]\n",
              "files", "is not a file beside"),
    _function(6, "a file's name of 5,000 letters", f"command: a\nfiles: [{'y/' * 2500}z]\n",
              "files", "is not a file beside"),
    Typed(family=6, name="no such file, 300 letters",
          command=("function", "register", f"{_LONG}.yml"), says=("cannot be read",)),
    _experiment(17, "the environment", "name: x\ncommand: a\nfiles: [/proc/self/environ]\n",
                "files"),
    _experiment(17, "the keys", "name: x\ncommand: a\nfiles: [~/.ssh/id_rsa]\n", "files"),
    _experiment(28, "LD_PRELOAD", "name: x\ncommand: a\nparameters: {LD_PRELOAD: string}\n",
                "LD_PRELOAD"),
    _experiment(33, "a step of 0",
                "name: x\ncommand: a {{N}}\nparameters: {N: int}\ntask_inputs: {N: 1..9 step 0}\n",
                "N"),
    _function(35, "1e999", "name: f\ncommand: a\nparameters: {A: {type: float, default: 1e999}}\n",
              "parameters.A.default", "not a finite number"),
    _function(35, "1e999 in JSON", _PARAMETER % "1e999",
              "parameters.A.default", suffix=".json"),
    _function(35, "NaN in JSON", _PARAMETER % "NaN",
              "parameters.A.default", suffix=".json"),
    _function(35, ".nan", "command: a\nparameters: {A: {type: float, default: .nan}}\n",
              "parameters.A.default"),
    _arguments(35, "1e999", "SEED=1e999", says="arguments.SEED"),
    _arguments(35, "NaN", "SEED=NaN", says="arguments.SEED"),
    _arguments(36, "5,000 digits", "SEED=" + "9" * 5000, says="arguments.SEED"),
    _arguments(36, "2^63", "SEED=9223372036854775808", says="arguments.SEED"),
    _function(36, "5,000 digits", f"command: a\ntimeout: {'9' * 5000}\n", "cannot be read"),
    _arguments(37, "true", "SEED=true", says="arguments.SEED"),
    _arguments(38, "other digits", "SEED=\u0661\u0662", says="arguments.SEED"),
    _experiment(40, "12:30:45 as a time", "name: x\ncommand: a\nresources: {time: no}\n",
                "resources.time"),
    _function(41, "half a pair", 'name: f\ncommand: "echo \\ud800"\n', "command"),
    _function(41, "half a pair in JSON", _JSON % '"description": "\\ud800"', "description",
              suffix=".json"),
    _function(41, "half a pair as a key", _JSON % '"\\udc00": 1', "\\udc00", suffix=".json"),
    _experiment(41, "half a pair", 'name: "\\ud800"\ncommand: a\n'),
    _experiment(41, "half a pair as a file", 'name: x\ncommand: a\nfiles: ["\\ud800"]\n', "files"),
    _arguments(41, "a byte that is no text", "SEED=\udcff", says="arguments.SEED"),
    Typed(family=41, name="a project that is no text", command=("project", "get", "\udcff")),
    _function(42, "NUL", 'name: f\ncommand: "echo \\0"\n', "command"),
    _experiment(43, "invalid UTF-8", b"name: \xff\n", "not UTF-8"),
    _experiment(43, "UTF-16", "name: x\n".encode("utf-16"), "not UTF-8"),
    _lines(43, "invalid UTF-8", b'{"SEED": "\xff"}\n', "not UTF-8"),
    _function(44, "a key twice", "name: f\nname: g\n", "stands twice"),
    _function(44, "a key twice in JSON", '{"name": "f", "name": "g"}', "stands twice",
              suffix=".json"),
    _lines(44, "a key twice", '{"SEED": 1}\n{"SEED": 1, "SEED": 2}\n', "line 2", "stands twice"),
    _function(45, "100,000 levels", "a: " + "[" * 100_000, "cannot be read"),
    _function(45, "100,000 levels of JSON", "[" * 100_000, suffix=".json"),
    _lines(45, "100,000 levels", "[" * 100_000, "line 1"),
    _arguments(45, "100,000 levels", "SEED=" + "[" * 100_000, says="arguments.SEED"),
    _experiment(45, "100,000 levels", "a: " + "[" * 100_000),
    _function(46, "an alias", "a: &a [1]\nb: *a\n", "alias"),
    _experiment(46, "an alias", "a: &a [1]\nb: *a\n"),
    _function(47, "python", "name: !!python/object/apply:os.system [id]\n", "python"),
    _experiment(47, "python", "name: !!python/object/apply:os.system [id]\n"),
    Typed(family=5, name="a project in red", command=("project", "get", "\x1b[31mred")),
    Typed(family=5, name="a project in two lines", command=("project", "get", "a\nb")),
    Typed(family=6, name="a project of 5,000 letters", command=("project", "get", "p" * 5000)),
    Typed(family=6, name="a project of 200,000 letters", command=("project", "get", "p" * 100_000)),
    Typed(family=3, name="a project above", command=("project", "get", "../users/me")),
    Typed(family=3, name="a project above, encoded", command=("project", "get", "..%2fusers%2fme")),
    Typed(family=36, name="a wait of 5,000 digits",
          command=("function", "call", "heat", "SEED=1", "--wait", "9" * 5000), says=("duration",)),
    Typed(family=40, name="a wait of no", command=("function", "call", "heat", "SEED=1", "--wait",
                                                   "no"), says=("duration",)),
    Typed(family=32, name="a table without its columns", command=("function", "map", "heat",
          "--inputs", "{file}"), text='SEED\n1,2,3\n', suffix=".csv", says=("line 2",)),
)  # fmt: skip
