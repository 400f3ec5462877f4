"""Schemathesis over the whole OpenAPI document: what it is told, and what it found.

A round has three phases: `coverage` (each value at and beyond its bounds), `fuzzing` (requests made
up from the schemas) and `stateful` (chains of requests, where the answer to one names the object of
the next). Each round has a seed of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events, from_schema
from schemathesis.schemas import BaseSchema

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)
MOST_SHOWN = 40


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much of what a round does; `examples` are per operation, `chains` for all together."""

    coverage: bool
    examples: int
    chains: int


# About 20,000 requests, and about 14,000: four to a chain, and every value at its bounds once.
FIRST = Plan(coverage=True, examples=3, chains=3_500)
LATER = Plan(coverage=False, examples=10, chains=3_000)
SMALL = Plan(coverage=True, examples=0, chains=20)


@dataclass(kw_only=True)
class Found:
    """What checks failed, each kind of failure at each operation once, with a request to replay."""

    faults: dict[tuple[str, ...], str] = field(default_factory=dict)
    phases: list[str] = field(default_factory=list)

    def note(self, event: events.EngineEvent) -> None:
        """Take in what the engine tells."""
        if isinstance(event, events.ScenarioFinished):
            self._note_checks(event)
        elif isinstance(event, events.NonFatalError):
            self.faults[("engine", event.label, str(event.value))] = str(event.info.message)
        elif isinstance(event, events.FatalError):
            self.faults[("engine", repr(event.exception))] = "the run broke off"
        elif isinstance(event, events.PhaseFinished) and event.status is not Status.SKIP:
            self.phases.append(event.phase.name.value)

    def _note_checks(self, event: events.ScenarioFinished) -> None:
        for case_id, results in event.recorder.checks.items():
            for result in results:
                if result.failure_info is None:
                    continue
                failure = result.failure_info.failure
                case = event.recorder.cases[case_id].value
                place = (result.name, case.operation.label, failure.title, failure.message[:200])
                self.faults.setdefault(place, case.as_curl_command()[:1_000])

    def report(self) -> str:
        """The faults as lines: check, operation, what is wrong, how to send it again."""
        shown = [
            " | ".join(place) + f"\n    {request}"
            for place, request in list(self.faults.items())[:MOST_SHOWN]
        ]
        more = len(self.faults) - len(shown)
        return "\n".join(shown) + (f"\nand {more} more" if more > 0 else "")


def run(load: Callable[[SchemathesisConfig], BaseSchema], plan: Plan, *, seed: int) -> Found:
    """One round with the schema that `load` brings."""
    found = Found()
    for event in _events(load, plan, seed):
        found.note(event)
    return found


def _events(
    load: Callable[[SchemathesisConfig], BaseSchema], plan: Plan, seed: int
) -> Iterator[events.EngineEvent]:
    schema = load(configuration(plan, seed))
    yield from iter(from_schema(schema).execute())


def configuration(plan: Plan, seed: int) -> SchemathesisConfig:
    """The checks and phases; nothing is remembered from run to run, and no failure is shrunk."""

    def phase(enabled: bool, examples: int = 1) -> dict[str, Any]:
        return {"enabled": enabled, "generation": {"max-examples": examples}}

    return SchemathesisConfig.from_dict(
        {
            "seed": seed,
            "suppress-health-check": ["all"],
            "continue-on-failure": True,
            "checks": {"enabled": False, **{name: {"enabled": True} for name in CHECKS}},
            "generation": {
                "database": "none",
                "no-shrink": True,
                "with-security-parameters": False,
            },
            "phases": {
                "examples": {"enabled": False},
                "coverage": {"enabled": plan.coverage},
                "fuzzing": phase(plan.examples > 0, plan.examples),
                "stateful": phase(plan.chains > 0, plan.chains),
            },
        }
    )


def over_wsgi(app: Any) -> Callable[[SchemathesisConfig], BaseSchema]:
    """Brings the schema of an application in this process."""
    return lambda config: schemathesis.openapi.from_wsgi("/api/v1/openapi.json", app, config=config)


def over_http(url: str, headers: dict[str, str]) -> Callable[[SchemathesisConfig], BaseSchema]:
    """Brings the schema of a server; what waits for news by design is left out."""

    def load(config: SchemathesisConfig) -> BaseSchema:
        config.projects.default.headers = headers
        loaded = schemathesis.openapi.from_url(f"{url}/api/v1/openapi.json", config=config)
        return loaded.include(path_regex="^/api/v1/(projects|users|groups|experiments)").exclude(
            path_regex="/events$"
        )

    return load
