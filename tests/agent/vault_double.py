"""A HashiCorp Vault for tests: real HTTP, tokens that expire, policies, and KV version 2.

https://developer.hashicorp.com/vault/api-docs
"""

from __future__ import annotations

import contextlib
import json
import secrets
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.agent.vault_kv import KvEngine, Reply, refused, stamp

Rules = Mapping[str, set[str]]
ALL = {"create", "read", "update", "delete", "list"}
ROOT: Rules = {"*": ALL}
#: What Vault's built-in `default` policy gives every token.
DEFAULT_POLICY: Rules = {
    "auth/token/lookup-self": {"read"},
    "auth/token/renew-self": {"update"},
}
DENIED = "1 error occurred:\n\t* permission denied\n\n"
INVALID_TOKEN = "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"


@dataclass(kw_only=True)
class Token:
    """A service token; `ttl` 0 is a root token's, which never ends."""

    id: str = field(default_factory=lambda: f"hvs.{secrets.token_urlsafe(18)}")
    accessor: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    rules: Rules
    namespace: str = ""
    ttl: int = 0
    renewable: bool = False
    expires_at: float = float("inf")
    #: No renewal goes past this.
    ends_at: float = float("inf")
    path: str = "auth/token/create"

    def allows(self, path: str, capability: str) -> bool:
        if path in self.rules:
            return capability in self.rules[path]
        globs = [rule for rule in self.rules if rule.endswith("*") and path.startswith(rule[:-1])]
        return bool(globs) and capability in self.rules[max(globs, key=len)]


@dataclass(frozen=True, kw_only=True)
class KubernetesRole:
    """Whom a role of the kubernetes auth method lets in, and what the token may."""

    rules: Rules
    jwts: set[str]
    ttl: int = 3600
    namespace: str = ""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request as it arrived."""

    method: str
    path: str
    token: str | None
    namespace: str
    body: Any


class VaultDouble:
    """One unsealed Vault with KV version 2 at `secret/` in the root namespace."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.url = ""
        self.sealed = False
        #: Answers given instead of the next ones; a proxy or a quota says no before Vault does.
        self.next_replies: list[Reply] = []
        self.calls: list[Call] = []
        self.roles: dict[tuple[str, str], KubernetesRole] = {}
        self._engines: dict[tuple[str, str], KvEngine] = {}
        self._tokens: dict[str, Token] = {}
        self._before: list[tuple[str, str, Callable[[], None]]] = []
        self._lock = threading.Lock()
        self.mount("secret")
        self.root = self.issue(ROOT)

    def mount(self, name: str, namespace: str = "") -> KvEngine:
        """Enable KV version 2 at the path; a namespace begins with its first mount."""
        return self._engines.setdefault((namespace, name), KvEngine())

    def issue(
        self,
        rules: Rules,
        *,
        ttl: int = 0,
        max_ttl: float = float("inf"),
        renewable: bool = True,
        namespace: str = "",
        default_policy: bool = True,
        path: str = "auth/token/create",
    ) -> Token:
        """Make a token that is valid from now on."""
        now = self.clock()
        token = Token(
            rules={**DEFAULT_POLICY, **rules} if default_policy else rules,
            namespace=namespace,
            ttl=ttl,
            renewable=renewable and ttl > 0,
            expires_at=now + min(ttl, max_ttl) if ttl else float("inf"),
            ends_at=now + max_ttl,
            path=path,
        )
        self._tokens[token.id] = token
        return token

    def revoke(self, token_id: str) -> None:
        """End a token at once."""
        self._tokens.pop(token_id, None)

    def live_tokens(self) -> list[Token]:
        """Return the tokens that are still good."""
        return [token for token in self._tokens.values() if self.clock() < token.expires_at]

    def once_before(self, method: str, path: str, action: Callable[[], None]) -> None:
        """Do something just before the next such call is answered: another writer, say."""
        self._before.append((method, path, action))

    def put(self, path: str, data: dict[str, Any], mount: str = "secret") -> None:
        """Write a secret as somebody else."""
        body = {"data": data}
        status, answer = self._engines["", mount].answer("POST", f"data/{path}", {}, body)
        assert status == 200, answer

    def ask(self, method: str, path: str, body: Any = None, mount: str = "secret") -> Any:
        """Return what the engine answers to anybody with every right."""
        return self._engines["", mount].answer(method, path, {}, body)[1]

    def paths(self, method: str | None = None) -> list[str]:
        """Return the paths called so far."""
        return [call.path for call in self.calls if method in (None, call.method)]

    def answer(self, call: Call, query: dict[str, str]) -> Reply:
        """Answer a request; the order of refusals is Vault's own."""
        self.calls.append(call)
        action = None
        with self._lock:
            for entry in self._before:
                if entry[:2] == (call.method, call.path):
                    self._before.remove(entry)
                    action = entry[2]
                    break
        if action is not None:
            action()
        if self.next_replies:
            return self.next_replies.pop(0)
        if self.sealed:
            return refused(503, "Vault is sealed")
        login = self._login(call)
        return login if login is not None else self._authorized(call, query)

    def _login(self, call: Call) -> Reply | None:
        prefix, _, rest = call.path.partition("/")
        mount, _, last = rest.rpartition("/")
        if prefix != "auth" or last != "login" or call.method not in ("POST", "PUT"):
            return None
        if mount not in {known for known, _ in self.roles}:
            return refused(403, "permission denied")
        for name in ("role", "jwt"):
            if not call.body.get(name):
                return refused(400, f"missing {name}")
        role = self.roles.get((mount, call.body["role"]))
        if role is None or role.namespace != call.namespace:
            return refused(400, f'invalid role name "{call.body["role"]}"')
        if call.body["jwt"] not in role.jwts:
            return refused(403, "permission denied")
        path = f"auth/{mount}/login"
        token = self.issue(role.rules, ttl=role.ttl, namespace=role.namespace, path=path)
        return 200, {"auth": self._auth(token, role.ttl)}

    def _auth(self, token: Token, seconds: int) -> dict[str, Any]:
        return {
            "client_token": token.id,
            "accessor": token.accessor,
            "policies": ["default"],
            "token_policies": ["default"],
            "metadata": {},
            "lease_duration": seconds,
            "renewable": token.renewable,
            "entity_id": "",
            "token_type": "service",
            "orphan": True,
            "mfa_requirement": None,
            "num_uses": 0,
        }

    def _authorized(self, call: Call, query: dict[str, str]) -> Reply:
        token = self._tokens.get(call.token or "")
        if token is None or self.clock() >= token.expires_at:
            return refused(403, INVALID_TOKEN)
        if not (call.namespace + "/").startswith(token.namespace):
            return refused(403, DENIED)
        engine, rest = self._engine(call)
        if not token.allows(call.path, self._capability(call, query, engine, rest)):
            return refused(403, DENIED)
        if call.path == "auth/token/lookup-self":
            return 200, {"data": self._looked_up(token)}
        if call.path == "auth/token/renew-self":
            return self._renewed(token)
        if engine is None:
            route = f'no handler for route "{call.path}". route entry not found.'
            return refused(404, route)
        return engine.answer(call.method, rest, query, call.body)

    def _engine(self, call: Call) -> tuple[KvEngine | None, str]:
        for (namespace, mount), engine in self._engines.items():
            if namespace == call.namespace and call.path.startswith(f"{mount}/"):
                return engine, call.path.removeprefix(f"{mount}/")
        return None, ""

    @staticmethod
    def _capability(call: Call, query: dict[str, str], engine: KvEngine | None, rest: str) -> str:
        if call.method == "LIST" or query.get("list") == "true":
            return "list"
        if call.method in ("POST", "PUT"):
            return "create" if engine is not None and not engine.exists(rest) else "update"
        return {"GET": "read", "DELETE": "delete"}.get(call.method, "patch")

    def _looked_up(self, token: Token) -> dict[str, Any]:
        found: dict[str, Any] = {
            "accessor": token.accessor,
            "creation_time": 0,
            "creation_ttl": token.ttl,
            "display_name": "token",
            "entity_id": "",
            "expire_time": None,
            "explicit_max_ttl": 0,
            "id": token.id,
            "meta": None,
            "num_uses": 0,
            "orphan": True,
            "path": token.path,
            "policies": ["default"],
            "ttl": 0,
            "type": "service",
        }
        if token.ttl:
            found["expire_time"] = found["issue_time"] = stamp()
            found["ttl"] = int(token.expires_at - self.clock())
            found["renewable"] = token.renewable
        return found

    def _renewed(self, token: Token) -> Reply:
        if not token.renewable:
            return refused(400, "lease is not renewable")
        now = self.clock()
        token.expires_at = min(now + token.ttl, token.ends_at)
        return 200, {"auth": self._auth(token, int(token.expires_at - now))}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    vault: VaultDouble

    def __getattr__(self, name: str) -> Any:
        # The verbs of HTTP, and Vault's own LIST.
        if name.startswith("do_"):
            return self._respond
        raise AttributeError(name)

    def _respond(self) -> None:
        url = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        call = Call(
            method=self.command,
            path=unquote(url.path).removeprefix("/v1/"),
            token=self.headers.get("x-vault-token"),
            namespace=(self.headers.get("x-vault-namespace") or "").strip("/"),
            body=json.loads(raw) if raw else {},
        )
        self._send(*self.vault.answer(call, dict(parse_qsl(url.query))))

    def _send(self, status: int, body: Any) -> None:
        self.send_response(status)
        self.send_header("Cache-Control", "no-store")
        if isinstance(body, dict):
            kind = "application/json"
            if "errors" not in body:
                body = {**ENVELOPE, "request_id": str(uuid.uuid4()), **body}
            content = json.dumps(body).encode()
        else:
            kind, content = "text/html", (body or "").encode()
        if status in (301, 307):
            self.send_header("Location", "http://127.0.0.1:1/v1/elsewhere")
        if status != 204:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 # the parent's name
        """Say nothing: the tests read `calls`."""


ENVELOPE = {
    "lease_id": "",
    "renewable": False,
    "lease_duration": 0,
    "data": None,
    "wrap_info": None,
    "warnings": None,
    "auth": None,
}


@contextlib.contextmanager
def serving(vault: VaultDouble, tls: ssl.SSLContext | None = None) -> Iterator[VaultDouble]:
    """Answer at `vault.url` for as long as the context lasts."""
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Handler", (_Handler,), {"vault": vault}), bind_and_activate=True
    )
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    vault.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield vault
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
