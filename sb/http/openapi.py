"""The OpenAPI 3.1 document, made from the declarations, and a page that lists it without a CDN."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Any

from quart import Quart, Response, request
from quart_schema import (
    QuartSchema,
    document_querystring,
    document_request,
    document_response,
    operation_id,
    security_scheme,
    tag,
)
from quart_schema.openapi import OpenAPIProvider
from quart_trio import QuartTrio

from sb.errors import RateLimitedError, SbError
from sb.http.declare import REGISTRY, Agent, Public, RouteDeclaration, template
from sb.http.errors import ErrorBody
from sb.http.idempotency import IDEMPOTENCY_KEY
from sb.http.observe import name_route

ENDPOINTS = frozenset({"openapi", "docs"})
SECURITY: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "cookie": {"type": "apiKey", "in_": "cookie", "name": "sb_session"},
    "agent": {"type": "apiKey", "in_": "header", "name": "X-Agent-Secret"},
}
_STATUS = {"application/json": {"schema": {"type": "object"}}}
#: What the probes answer; they are not declared routes.
PROBES: dict[str, dict[str, Any]] = {
    "/healthz": {
        "summary": "Is the process alive",
        "responses": {200: {"description": "Alive.", "content": _STATUS}},
    },
    "/readyz": {
        "summary": "Are all checks passed, each by name",
        "responses": {
            200: {"description": "Ready.", "content": _STATUS},
            503: {"description": "Not ready, or draining.", "content": _STATUS},
        },
    },
    "/metrics": {
        "summary": "Metrics for Prometheus",
        "responses": {
            200: {
                "description": "Prometheus' text format.",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            }
        },
    },
}
#: The page runs nothing and loads nothing.
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
#: What any route may answer besides what it declares.
ALWAYS = (400, 404, 500, 503)


def register(app: QuartTrio) -> None:
    """Serve `/openapi.json` and `/docs` for the declared routes."""
    for declaration in REGISTRY:
        _describe(app.view_functions[declaration.name], declaration)
    extension = QuartSchema(
        app,
        openapi_path=None,
        redoc_ui_path=None,
        scalar_ui_path=None,
        swagger_ui_path=None,
        info={"title": "Secrets Bridge", "version": "v1"},
        security_schemes=SECURITY,
    )
    # Written once: a document that cannot be written stops the start, not the reader.
    document = app.json.dumps(_document(app, extension))

    async def openapi() -> Response:
        name_route(request.scope, "/openapi.json")
        return Response(document, content_type="application/json")

    async def docs() -> Response:
        name_route(request.scope, "/docs")
        response = Response(_page(), content_type="text/html; charset=utf-8")
        response.headers["Content-Security-Policy"] = PAGE_POLICY
        return response

    app.add_url_rule("/openapi.json", "openapi", openapi)
    app.add_url_rule("/docs", "docs", docs)


def _document(app: Quart, extension: QuartSchema) -> dict[str, Any]:
    document = OpenAPIProvider(app, extension).schema()
    paths = document["paths"]
    for declaration in REGISTRY:
        path = "/api/v1" + template(declaration.path)
        for parameter in paths[path].get("parameters", []):
            _mark_id(parameter)
        operation = paths[path][declaration.method.lower()]
        operation["summary"] = declaration.summary
        for parameter in operation.get("parameters", []):
            _mark_id(parameter)
        if declaration.body is not None and declaration.body_optional:
            operation["requestBody"]["required"] = False
        if declaration.status == 204 or declaration.may_be_empty:
            operation["responses"][204] = {"description": "Done; there is nothing to say."}
        if headers := _headers(declaration):
            operation["parameters"] = [*operation.get("parameters", []), *headers]
    for path, operation in PROBES.items():
        if path in paths:
            paths[path]["get"].update(operation)
    return {**document, "paths": {path: paths[path] for path in sorted(paths)}}


def _headers(declaration: RouteDeclaration) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "header", "required": True, "schema": {"type": "string"}}
        for name in declaration.headers
    ]
    if declaration.creates:
        schema = {"type": "string", "pattern": f"^{IDEMPOTENCY_KEY.pattern}$"}
        found.append({"name": "Idempotency-Key", "in": "header", "schema": schema})
    return found


def _mark_id(parameter: dict[str, Any]) -> None:
    if parameter.get("in") == "path" and parameter["name"].endswith("_id"):
        parameter["schema"] = {"type": "string", "format": "uuid"}


def _describe(view: Any, declaration: RouteDeclaration) -> None:
    noun = declaration.path.split("/")[1]
    tag([noun])(view)
    operation_id(f"{declaration.method.lower()}_{_slug(declaration.path)}")(view)
    security_scheme(_security(declaration))(view)
    if declaration.body is not None:
        document_request(declaration.body)(view)
    if declaration.query is not None:
        document_querystring(declaration.query)(view)
    if declaration.status != 204:
        document_response(declaration.returns or dict[str, Any], declaration.status)(view)
    for status in sorted({*_statuses(declaration)} - {declaration.status}):
        document_response(ErrorBody, status)(view)


def _statuses(declaration: RouteDeclaration) -> Iterable[int]:
    yield from ALWAYS
    yield from (error.status for error in declaration.errors)
    if not isinstance(declaration.access, Public):
        yield from (401, 403)
    if declaration.body is not None:
        yield from (413, 415)
    if declaration.creates:
        yield 409
    if declaration.limit is not None or isinstance(declaration.access, Agent):
        yield RateLimitedError.status


def _security(declaration: RouteDeclaration) -> list[dict[str, list[str]]]:
    if isinstance(declaration.access, Public):
        return []
    if isinstance(declaration.access, Agent):
        return [{"agent": []}]
    return [{"bearer": []}, {"cookie": []}]


def _slug(path: str) -> str:
    words = re.sub(r"[{}]", "", template(path)).replace("-", "_").strip("/")
    return words.replace("/", "_")


def error_codes() -> dict[str, type[SbError]]:
    """Return every stable error code with its class."""
    found: dict[str, type[SbError]] = {}
    pending: list[type[SbError]] = [SbError]
    while pending:
        error = pending.pop()
        found.setdefault(error.code, error)
        pending.extend(error.__subclasses__())
    return found


def _page() -> str:
    rows = "\n".join(
        f"<tr><td><code>{html.escape(declaration.method)}</code></td>"
        f"<td><code>/api/v1{html.escape(template(declaration.path))}</code></td>"
        f"<td>{html.escape(declaration.summary)}</td></tr>"
        for declaration in sorted(REGISTRY, key=lambda found: (found.path, found.method))
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Secrets Bridge API</title>"
        "<style>body{font:16px system-ui;margin:2rem;max-width:70rem}"
        "td{padding:.3rem .8rem;border-bottom:1px solid #ddd}</style>"
        "<h1>Secrets Bridge API</h1>"
        "<p>Machine-readable: <a href=/openapi.json>/openapi.json</a> (OpenAPI 3.1). Sign in with "
        "<code>POST /api/v1/auth/login</code> and send the token as "
        "<code>Authorization: Bearer</code>.</p>"
        f"<table>{rows}</table></html>"
    )
