"""Pages: templates that escape everything, and headers that make a browser run our own files only."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, Response

from litellm_budget_plugin.core.accounts import SCOPES
from litellm_budget_plugin.server.dashboard import wording
from litellm_budget_plugin.server.dashboard.charts import COLOURS
from litellm_budget_plugin.server.dashboard.session import Visitor, remember_form
from litellm_budget_plugin.server.dashboard.totals import DAYS, PERIODS

_KINDS = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    # With "no-referrer" a browser would not say which site a form comes from.
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def _read_assets() -> dict[str, bytes]:
    folder = files(__package__) / "static"
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name.rpartition(".")[2] in _KINDS}


_ASSETS = _read_assets()
_VERSIONS = {name: hashlib.sha256(content).hexdigest()[:12] for name, content in _ASSETS.items()}
_templates = Environment(
    loader=PackageLoader(__package__),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.globals |= {"w": wording, "SCOPES": SCOPES, "PERIODS": PERIODS, "DAYS": DAYS, "COLOURS": COLOURS}


async def page(visitor: Visitor, template: str, status: int = 200, **values: Any) -> Response:
    """Return a page made from a template. This runs on a thread, because the amount of data has no bound."""
    return await run_in_threadpool(render, visitor, template, status, **values)


def render(visitor: Visitor, template: str, status: int = 200, **values: Any) -> Response:
    """Return a page made from a template. For a long one, call this on a thread."""

    def asset(name: str) -> str:
        return f"{visitor.root}/static/{name}?v={_VERSIONS[name]}"

    text = _templates.get_template(template).render(
        visitor=visitor, link=visitor.link, to=visitor.to, asset=asset, **values
    )
    response = HTMLResponse(text, status, HEADERS)
    remember_form(response, visitor)
    return response


def asset(name: str) -> Response | None:
    """Return a file of the pages, None if there is no such file. Its address changes when the file does."""
    content = _ASSETS.get(name)
    if content is None:
        return None
    headers = {**HEADERS, "Cache-Control": "public, max-age=31536000, immutable"}
    return Response(content, media_type=_KINDS[name.rpartition(".")[2]], headers=headers)
