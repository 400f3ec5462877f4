"""REQUIRE_HTTPS, and whose word about the scheme and the address is believed.

`X-Forwarded-…` headers count only for as many hops as TRUSTED_PROXIES says; with 0, the default,
they are ignored, whoever sends them.
"""

from __future__ import annotations

from typing import Final

from flask import Flask, request
from werkzeug.middleware.proxy_fix import ProxyFix

from airavata_scheduler.models.configuration import Configuration
from airavata_scheduler.models.errors import Forbidden

# A load balancer probes these over plain HTTP, inside its own network; they tell nothing secret.
PROBES: Final = frozenset({"/api/v1/health", "/api/v1/health/db", "/api/v1/health/ready"})


class HttpsRequired(Forbidden):
    """This server takes requests over HTTPS only."""

    code = "https_required"


def register(app: Flask, config: Configuration) -> None:
    """Believe TRUSTED_PROXIES hops, and refuse plain HTTP if REQUIRE_HTTPS is set."""
    if config.trusted_proxies:
        hops = config.trusted_proxies
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops
        )
    if config.require_https:
        app.before_request(_refuse_plain_http)


def _refuse_plain_http() -> None:
    """Never redirect: a client that sent its token in the clear has to learn it."""
    if not request.is_secure and request.path not in PROBES:
        raise HttpsRequired(
            hint="Use https://; behind a proxy that ends TLS set TRUSTED_PROXIES to its hops."
        )
