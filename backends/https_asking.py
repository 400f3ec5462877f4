"""One GET over TLS to a pinned address, with a token or a client certificate."""

from __future__ import annotations

import contextlib
import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

from airavata_scheduler.backends import client_certificates
from airavata_scheduler.backends.credential_fields import invalid
from airavata_scheduler.backends.kubeconfig import Access, contexts_of
from airavata_scheduler.backends.outbound import Outbound
from airavata_scheduler.backends.private_keys import PrivateKey, read_private_key
from airavata_scheduler.backends.targets import Target, parse

MAX_ANSWER_BYTES = 64 * 1024
KUBERNETES_PATH = "/api"  # for every user that the server knows; /version answers strangers too


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks, and whose certificate the server must show."""

    how: str
    authority: str | None = None
    server_name: str | None = None
    token: str | None = field(default=None, repr=False)
    chain: str | None = None
    key: PrivateKey | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Whether the server took the caller, in a sentence, and its certificate's fingerprint."""

    ok: bool
    detail: str
    fingerprint: str | None = None


def caller(kind: str, secret: Mapping[str, str], text: str) -> tuple[Caller, Target]:
    """Who asks whom, of a TOKEN, CERTIFICATE or KUBECONFIG. Raises BadInput."""
    if kind == "KUBECONFIG":
        access, target = _of_kubeconfig(secret["kubeconfig"], text)
        how = "token" if access.chain is None else "client certificate"
        return Caller(
            how=f"{how} of context {access.name}",
            authority=access.authority,
            server_name=access.server_name,
            token=access.token,
            chain=access.chain,
            key=access.key,
        ), target
    target = parse(text, ("https",))
    if kind == "TOKEN":
        return Caller(how="token", authority=secret.get("ca"), token=secret["token"]), target
    return Caller(
        how="client certificate",
        authority=secret.get("ca"),
        chain=secret["certificate"],
        key=read_private_key("private_key", secret["private_key"], secret.get("passphrase")),
    ), target


def _of_kubeconfig(text: str, wanted: str) -> tuple[Access, Target]:
    """The context that leads to the wanted server, and the server; the current one for ""."""
    current, contexts = contexts_of(text)
    if not wanted:
        return contexts[current], parse(contexts[current].server, ("https",), field="kubeconfig")
    target = parse(wanted, ("https",))
    ordered = [contexts[current], *contexts.values()]
    for access in ordered:
        server = parse(access.server, ("https",), field="kubeconfig")
        if (server.host, server.port) == (target.host, target.port):
            return access, server
    hint = "Leave the target out, or bind the kubeconfig of this cluster."
    raise invalid(
        "target", f"is {target.authority}, where no context of the kubeconfig leads", hint
    )


def ask(outbound: Outbound, who: Caller, target: Target) -> Answer:
    """GET the target's path, or /api; redirects are reported, never followed.

    Raises Unreachable and OutboundRefused as `outbound` does.
    """
    context = client_certificates.trust(who.authority)
    if who.chain is not None and who.key is not None:
        client_certificates.show_certificate(context, who.chain, who.key)
    pinned = outbound.pin(target.host, target.port)
    with contextlib.closing(outbound.connect_pinned(pinned)) as plain:
        try:
            wrapped = context.wrap_socket(plain, server_hostname=who.server_name or target.host)
        except ssl.SSLCertVerificationError as error:
            return Answer(ok=False, detail=_not_proved(error))
        except (ssl.SSLError, OSError):
            return Answer(ok=False, detail="what answers there does not speak TLS, or hung up")
        with wrapped:
            der = wrapped.getpeercert(binary_form=True) or b""
            shown = client_certificates.certificate_fingerprint(der)
            try:
                status, body = _get(wrapped, outbound, who, target)
            except ssl.SSLError:
                return Answer(
                    ok=False,
                    detail=f"the server refused the connection with this {who.how}",
                    fingerprint=shown,
                )
            except (OSError, http.client.HTTPException):
                detail = "the server hung up, or its answer is no HTTP"
                return Answer(ok=False, detail=detail, fingerprint=shown)
    return _judged(status, body, who, shown)


def _not_proved(error: ssl.SSLCertVerificationError) -> str:
    return (
        f"the server's certificate was not accepted ({error.verify_message}), so nothing was sent; "
        "give the credential the authority that signed it (ca), or name the host as the "
        "certificate does"
    )


def _get(
    wrapped: ssl.SSLSocket, outbound: Outbound, who: Caller, target: Target
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(target.host, target.port)
    connection.auto_open = 0  # never by itself, to wherever the name leads then
    connection.sock = wrapped
    wrapped.settimeout(outbound.remaining_s)
    headers = {"Accept": "application/json", "User-Agent": "airavata-scheduler"}
    if who.token is not None:
        headers["Authorization"] = f"Bearer {who.token}"
    path = target.path if target.path not in ("", "/") else KUBERNETES_PATH
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read(MAX_ANSWER_BYTES)


def _judged(status: int, body: bytes, who: Caller, shown: str) -> Answer:
    def answer(detail: str, *, ok: bool = False) -> Answer:
        return Answer(ok=ok, detail=detail, fingerprint=shown)

    if 200 <= status < 300:
        return answer(f"the server answered {status} to the {who.how}", ok=True)
    if status == 401 or (status == 403 and b"system:anonymous" in body):
        return answer(
            f"the server does not know this {who.how} ({status}); it may have ended or be another "
            "cluster's"
        )
    if status == 403:
        return answer(
            f"the server knows the {who.how} and forbids this path (403); give it the right to "
            "read it, or name another path"
        )
    if 300 <= status < 400:
        return answer(f"the server sends on to another address ({status}); name that one")
    if status == 404:
        return answer("the server has nothing at this path (404); name one that it has")
    return answer(f"the server answered {status}; its operator can say why")
