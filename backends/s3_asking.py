"""One question to an S3 store: may this key list the bucket, or its buckets?

The minio client signs and speaks; every connection that it makes goes through `Outbound`, and no
redirect is followed. AWS answers for a bucket under another host's name, which is judged and pinned
like the first.
"""

from __future__ import annotations

import io
import re
import socket
from collections.abc import Mapping
from typing import Any, cast
from xml.etree.ElementTree import ParseError

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.response import BaseHTTPResponse, HTTPResponse

from airavata_scheduler.backends import client_certificates
from airavata_scheduler.backends.https_asking import Answer
from airavata_scheduler.backends.outbound import Outbound, OutboundRefused, Pinned
from airavata_scheduler.backends.targets import Target, parse
from airavata_scheduler.models.errors import BadInput

MAX_ANSWER_BYTES = 4 * 1024 * 1024
OPTIONS = ("secure", "region")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_CODE = re.compile(r"[A-Za-z]{1,64}")
_MEANINGS = {
    "SignatureDoesNotMatch": "the secret is not that of this key's id",
    "InvalidAccessKeyId": "the store does not know this key's id",
    "AccessDenied": "the key may not do this; its owner must allow s3:ListBucket",
    "NoSuchBucket": "there is no bucket of this name",
    "ExpiredToken": "the temporary key has ended",
    "InvalidToken": "the session token does not belong to this key",
    "RequestTimeTooSkewed": "the clocks of the store and of the scheduler differ",
    "AuthorizationHeaderMalformed": "the bucket is in another region; name it: ?region=…",
    "PermanentRedirect": "the bucket is in another region; name it: ?region=…",
}


def read_target(text: str) -> tuple[Target, str, bool]:
    """The store, the bucket ("" for none), and whether TLS is spoken. Raises BadInput."""
    target = parse(text, ("s3",), options=OPTIONS)
    bucket = target.path.strip("/")
    secure = target.option("secure") or "true"
    region = target.option("region") or ""
    if (bucket and not _BUCKET.fullmatch(bucket)) or ".." in bucket:
        raise _bad("has no name of a bucket as its path")
    if secure not in ("true", "false") or (region and not re.fullmatch(r"[a-z0-9-]+", region)):
        raise _bad("has an option with a value that cannot be")
    if secure == "false" and ":" not in text.partition("//")[2].partition("/")[0]:
        raise _bad("has no port, and without TLS there is no usual one")
    return target, bucket, secure == "true"


def _bad(fault: str) -> BadInput:
    hint = "Write it as s3://host:443/bucket, or s3://host:9000/bucket?secure=false&region=…"
    return BadInput(f"target {fault}.", code="target_invalid", field="target", hint=hint)


def ask(outbound: Outbound, secret: Mapping[str, str], text: str) -> Answer:
    """List the bucket, or the buckets where none is named.

    Raises BadInput, Unreachable and OutboundRefused.
    """
    target, bucket, secure = read_target(text)
    pinned = outbound.pin(target.host, target.port)
    if not secure and not pinned.listed:
        raise OutboundRefused(
            f"{target.host} would be spoken to without TLS, which OUTBOUND_ALLOW does not permit.",
            field="target",
            hint="Leave secure=false out; or the operator lists the host in OUTBOUND_ALLOW.",
        )
    client = Minio(
        target.authority,
        access_key=secret["access_key_id"],
        secret_key=secret["secret_access_key"],
        session_token=secret.get("session_token"),
        secure=secure,
        region=_region(target, secret),
        http_client=_Pool(outbound, pinned, secret.get("ca")),
    )
    try:
        if bucket:
            next(iter(client.list_objects(bucket)), None)
        else:
            client.list_buckets()
    except S3Error as error:
        return Answer(ok=False, detail=_refused(error.code))
    except urllib3.exceptions.SSLError as error:
        return Answer(ok=False, detail=_no_tls(error))
    except (MinioException, urllib3.exceptions.HTTPError, ParseError, ValueError, OSError):
        return Answer(ok=False, detail="what answers there does not speak S3, or hung up")
    what = f"list the bucket {bucket}" if bucket else "list its buckets"
    return Answer(ok=True, detail=f"the key may {what}")


def _region(target: Target, secret: Mapping[str, str]) -> str | None:
    """AWS is asked for a bucket's region; other stores hardly look at it."""
    named = target.option("region") or secret.get("region")
    return named or (None if target.host.endswith(".amazonaws.com") else "us-east-1")


def _refused(code: str | None) -> str:
    if not code or not _CODE.fullmatch(code):
        return "the store refused, and said no reason that is known"
    return f"the store refused ({code}): {_MEANINGS.get(code, 'its operator can say why')}"


def _no_tls(error: urllib3.exceptions.SSLError) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return (
            "the store's certificate was not accepted, so nothing was sent; give the credential "
            "the authority that signed it (ca), or name the host as the certificate does"
        )
    return "what answers there does not speak TLS; without it: ?secure=false"


class _Pool(urllib3.PoolManager):
    """Connections through the guard; answers that are short; no second try, no redirect."""

    def __init__(self, outbound: Outbound, pinned: Pinned, authority: str | None) -> None:
        super().__init__(
            ssl_context=client_certificates.trust(authority), timeout=outbound.remaining_s
        )
        known = {(pinned.host, pinned.port): pinned}

        def connect(host: str, port: int) -> socket.socket:
            if (host, port) not in known:
                known[host, port] = outbound.pin(host, port)
            return outbound.connect_pinned(known[host, port])

        class Plain(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return connect(self.host, self.port or 80)

        class Secure(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return connect(self.host, self.port or 443)

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        self.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}

    def urlopen(  # type: ignore[override]
        self, method: str, url: str, **kw: Any
    ) -> BaseHTTPResponse:
        """One try, no redirect, and an answer of at most MAX_ANSWER_BYTES."""
        preload = kw.pop("preload_content", True)
        kw["retries"] = False
        kw["redirect"] = False
        answer = super().urlopen(method, url, preload_content=False, **kw)
        body = answer.read(MAX_ANSWER_BYTES + 1)
        answer.close()
        if len(body) > MAX_ANSWER_BYTES:
            raise urllib3.exceptions.HTTPError("the answer is too long")
        unpacked = ("content-encoding", "transfer-encoding", "content-length")
        headers = {
            name: text for name, text in answer.headers.items() if name.lower() not in unpacked
        }
        return cast(
            BaseHTTPResponse,
            HTTPResponse(
                body=io.BytesIO(body),
                headers=headers,
                status=answer.status,
                preload_content=preload,
                request_method=method,
            ),
        )
