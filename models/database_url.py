"""Reading `DATABASE_URL`.

Four forms are taken; the first two are the deployment guide's:

    user:password@tcp(localhost:3306)/airavata_scheduler?parseTime=true      (Go-MySQL DSN)
    postgres://user:password@localhost:5432/airavata_scheduler?sslmode=disable
    mysql://user:password@localhost:3306/airavata_scheduler
    sqlite:///airavata.db (relative)   sqlite:////var/lib/airavata.db (absolute)

No message made here contains the address itself: it holds a password.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from airavata_scheduler.models.errors import ConfigurationError

Dialect = Literal["postgresql", "mysql", "sqlite"]

FORMS = (
    "postgres://user:password@host:5432/database?sslmode=disable, "
    "user:password@tcp(host:3306)/database?parseTime=true or sqlite:////absolute/path.db"
)

_GO_DSN = re.compile(
    r"(?:(?P<user>[^:@/]*)(?::(?P<password>.*))?@)?"
    r"(?P<net>tcp|unix)\((?P<address>[^()]*)\)/(?P<database>[^/?]+)(?:\?(?P<query>.*))?",
    re.DOTALL,
)
# Parameters of Go's driver that say how Go reads values; they have no meaning here.
_GO_ONLY = frozenset(
    {
        "allowNativePasswords",
        "charset",
        "checkConnLiveness",
        "clientFoundRows",
        "collation",
        "columnsWithAlias",
        "interpolateParams",
        "loc",
        "maxAllowedPacket",
        "multiStatements",
        "parseTime",
        "readTimeout",
        "rejectReadOnly",
        "timeout",
        "writeTimeout",
    }
)


@dataclass(frozen=True, kw_only=True)
class DatabaseAddress:
    """Where the database is.

    `name` is the database's name, or the absolute path of the SQLite file; `parameters` are the
    driver's own keyword arguments (psycopg2, pymysql; none for SQLite).
    """

    dialect: Dialect
    name: str
    parameters: dict[str, Any]


def read_database_url(url: str) -> DatabaseAddress:
    """Take `url` apart.

    Raises ConfigurationError with one sentence, which never repeats the address.
    """
    scheme = url.partition("://")[0].lower() if "://" in url.partition("@")[0] else ""
    if scheme in ("postgres", "postgresql"):
        return _postgresql(url)
    if scheme in ("mysql", "mariadb"):
        return _mysql_url(url)
    if scheme == "sqlite":
        return _sqlite(url)
    match = _GO_DSN.fullmatch(url)
    if match is None:
        raise _malformed("its form is not known")
    return _go_mysql(match)


def _malformed(cause: str) -> ConfigurationError:
    return ConfigurationError(
        f"DATABASE_URL cannot be read: {cause}; write it as {FORMS}.", field="DATABASE_URL"
    )


def _postgresql(url: str) -> DatabaseAddress:
    from psycopg2 import Error  # noqa: PLC0415  drivers are loaded for their own dialect only
    from psycopg2.extensions import parse_dsn  # noqa: PLC0415

    try:
        parameters = dict(parse_dsn(url))
    except (Error, ValueError):
        # The driver's message may quote the password, so the cause is not shown or chained.
        raise _malformed("PostgreSQL's client library refuses it") from None
    name = parameters.pop("dbname", "")
    if not name:
        raise _malformed("it names no database")
    return DatabaseAddress(dialect="postgresql", name=name, parameters=parameters)


def _sqlite(url: str) -> DatabaseAddress:
    path = unquote(url.removeprefix("sqlite://").partition("?")[0])
    if not path.startswith("/") or path in ("/", "/:memory:"):
        raise _malformed("SQLite needs a file")
    # One slash belongs to the URL: sqlite:///x is relative, sqlite:////x is absolute.
    return DatabaseAddress(dialect="sqlite", name=str(Path(path[1:]).absolute()), parameters={})


def _mysql_url(url: str) -> DatabaseAddress:
    try:
        parts = urlsplit(url)
        port = parts.port or 3306
    except ValueError:
        raise _malformed("its host or port is not valid") from None
    name = unquote(parts.path.removeprefix("/"))
    if not name or "/" in name:
        raise _malformed("it names no database")
    parameters: dict[str, Any] = {
        "host": parts.hostname or "localhost",
        "port": port,
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
    }
    return DatabaseAddress(
        dialect="mysql", name=name, parameters=parameters | _mysql_options(parts.query)
    )


def _go_mysql(match: re.Match[str]) -> DatabaseAddress:
    # Go's driver takes user and password as they stand, without percent-decoding.
    parameters: dict[str, Any] = {
        "user": match["user"] or "",
        "password": match["password"] or "",
    }
    if match["net"] == "unix":
        parameters["unix_socket"] = match["address"]
    else:
        host, _, port = match["address"].rpartition(":")
        if not port.isdecimal():
            host, port = match["address"], "3306"
        if not 0 < int(port) < 65536:
            raise _malformed("its port is not between 1 and 65535")
        parameters |= {"host": host.strip("[]") or "localhost", "port": int(port)}
    return DatabaseAddress(
        dialect="mysql",
        name=unquote(match["database"]),
        parameters=parameters | _mysql_options(match["query"] or ""),
    )


def _mysql_options(query: str) -> dict[str, Any]:
    """What follows the question mark: `tls` and `ssl-ca`; Go's reading options are dropped."""
    options = dict(parse_qsl(query, keep_blank_values=True))
    tls, authority = options.pop("tls", "false"), options.pop("ssl-ca", None)
    unknown = sorted(set(options) - _GO_ONLY)
    if unknown:
        raise _malformed(f"the parameter {unknown[0]!r} is not known")
    if tls not in ("true", "false", "skip-verify"):
        raise _malformed("tls must be true, false or skip-verify")
    if tls == "false" and authority is None:
        return {}
    try:
        context = ssl.create_default_context(cafile=authority)
    except OSError:
        raise _malformed("the file that ssl-ca names cannot be read") from None
    if tls == "skip-verify":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return {"ssl": context}
