"""The Flask application: which blueprints, in which order a request passes what.

A request passes: its class's share of the threads → request id and clock → HTTPS → rate limit →
the gate (who, may they) → the view. Errors become problems on the way out, then come the security
headers and the log line.

A new noun is one module with an `APIBlueprint` called `api`, one line in `CLIENT` or `AGENT`, and
the rows of its routes in `route_table.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, Literal

from flask import Response, request
from flask_openapi3 import APIBlueprint, OpenAPI

from airavata_scheduler.backends import openbao, openid, spicedb
from airavata_scheduler.functions import (
    access,
    access_tokens,
    admission,
    agent_artifacts,
    agent_enrolment,
    agent_files,
    agent_inputs,
    agent_leases,
    agent_logs,
    agent_reports,
    agent_sessions,
    agents,
    artifacts,
    audit_views,
    auth,
    blobs,
    bootstrap,
    calls,
    compute_resources,
    credential_bindings,
    credential_shares,
    credential_values,
    credentials,
    experiments,
    experiments_control,
    experiments_streams,
    experiments_views,
    grants,
    group_members,
    groups,
    health,
    https_only,
    logs,
    members,
    metrics,
    openapi,
    openid_login,
    own_account,
    permission_views,
    problems,
    project_groups,
    projects,
    rate_limit,
    registry,
    request_log,
    resource_shares,
    storage_resources,
    streams,
    tasks,
    users,
)
from airavata_scheduler.functions.bodies import StrictRequest
from airavata_scheduler.models import counters
from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.database import database
from airavata_scheduler.models.errors import BadInput
from airavata_scheduler.models.faults import shown_key
from airavata_scheduler.queue import connection

Group = Literal["client", "agent"]

CLIENT: Final[tuple[APIBlueprint, ...]] = (
    auth.api,
    own_account.api,
    openid_login.api,
    access_tokens.api,
    users.api,
    groups.api,
    group_members.api,
    projects.api,
    members.api,
    project_groups.api,
    compute_resources.api,
    storage_resources.api,
    resource_shares.api,
    agents.api,
    registry.api,
    audit_views.api,
    permission_views.api,
    credentials.api,
    credential_values.api,
    credential_shares.api,
    credential_bindings.api,
    calls.api,
    blobs.api,
    experiments.api,
    experiments_control.api,
    experiments_views.api,
    experiments_streams.api,
    tasks.api,
    logs.api,
    artifacts.api,
)
AGENT: Final[tuple[APIBlueprint, ...]] = (
    agent_enrolment.api,
    agent_sessions.api,
    agent_leases.api,
    agent_inputs.api,
    agent_logs.api,
    agent_artifacts.api,
    agent_reports.api,
    agent_files.api,
)
ALWAYS: Final[tuple[APIBlueprint, ...]] = (health.api, metrics.api, openapi.api, bootstrap.api)
GROUPS: Final[Mapping[Group, tuple[APIBlueprint, ...]]] = {"client": CLIENT, "agent": AGENT}

CONTENT_SECURITY_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"


class Application(OpenAPI):
    """Flask with our request class, whose OpenAPI paths may be shared between blueprints."""

    request_class = StrictRequest

    def register_api(self, api: APIBlueprint, **options: Any) -> None:
        """As in flask-openapi3, but a path that two modules serve keeps both their methods."""
        before = dict(self.paths)
        super().register_api(api, **options)
        for path, item in before.items():
            now = self.paths[path]
            if now is not item:
                operations = {name: getattr(item, name) for name in item.model_fields_set}
                operations |= {name: getattr(now, name) for name in now.model_fields_set}
                self.paths[path] = type(item).model_construct(**operations)


def create_app(
    config: Configuration, groups: Collection[Group] = ("client", "agent")
) -> Application:
    """The application for `config`, serving the given groups of functions.

    The database must be connected (`models.database.connect`). Raises LookupError if a route has
    no row in the route table, and ConfigurationError if no token can be signed.
    """
    config.require_jwt_secret()
    app = Application(__name__, info=openapi.INFO, doc_ui=False, static_folder=None)
    app.config["AIRAVATA"] = config
    app.config["MAX_CONTENT_LENGTH"] = config.max_body_bytes
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask's own provider has it
    app.url_map.strict_slashes = True
    connection.configure(config.redis_url)
    spicedb.configure(config)
    openbao.configure(config)
    openid.configure(config)
    counters.configure(config.sweep_window)
    streams.allow(config.api_threads)
    admission.allow(config.api_threads)
    app.validation_error_callback = problems.raise_invalid
    request_log.register(app)
    https_only.register(app, config)
    app.before_request(_refuse_doubtful_queries)
    rate_limit.register(app, config)
    access.register(app)
    problems.register(app)
    app.after_request(_secure)
    app.after_request(_relay_grants)
    app.teardown_request(_give_back_connection)
    app.wsgi_app = admission.Gate(app.wsgi_app)  # type: ignore[method-assign]
    for blueprint in (*ALWAYS, *(api for group in groups for api in GROUPS[group])):
        app.register_api(blueprint)
    access.check_routes(app)
    return app


def _refuse_doubtful_queries() -> None:
    """A NUL fits no name of ours, and PostgreSQL would choke on it; of two values one is lost.

    A program before us (a proxy, a filter) may take the other one of the two than we do.
    """
    for name, values in request.args.lists():
        if any("\x00" in text for text in (name, *values)):
            raise BadInput(
                "A query parameter contains a NUL character.", code="nul", field=shown_key(name)
            )
        if len(values) > 1:
            raise BadInput(
                f"The parameter {shown_key(name)} is given {len(values)} times.",
                code="duplicate_parameter",
                field=shown_key(name),
                hint="Keep one of them.",
            )


def _relay_grants(response: Response) -> Response:
    """Who was granted something can use it once the answer is there."""
    grants.relay_now()
    return response


def _secure(response: Response) -> Response:
    headers = response.headers
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("X-Frame-Options", "DENY")
    headers.setdefault("Referrer-Policy", "no-referrer")
    headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    headers.setdefault("Cache-Control", "no-store")
    if request.is_secure:
        headers.setdefault("Strict-Transport-Security", "max-age=31536000")
    return response


def _give_back_connection(_error: BaseException | None = None) -> None:
    """The pool lends a connection at a request's first query; here it goes back."""
    if not database.is_closed():
        database.close()
