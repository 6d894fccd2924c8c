"""The server's log, as plain lines or as one JSON object a line, without keys, bodies or query strings."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import MutableMapping
from datetime import datetime, timezone
from typing import Any

from starlette.requests import ClientDisconnect

from litellm_budget_plugin.server.limits import App, Message, Receive, Send

_logger = logging.getLogger("litellm_budget_plugin.server.access")

CLIENT_GONE = 499
"""The logged status of a request whose client disconnected before the answer, as in nginx's log."""


class JsonLines(logging.Formatter):
    """Formats a record as `{"time": …, "level": …, "logger": …, "message": …}`, with the fields of its `extra={"said": {...}}`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "said", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_config(as_json: bool, every_request: bool) -> dict[str, Any]:
    """Return a configuration for logging.config.dictConfig that sends everything to standard error."""
    plain = {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}
    formatter = {"()": "litellm_budget_plugin.server.logs.JsonLines"} if as_json else plain
    to_stderr = {"handlers": ["stderr"], "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": formatter},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "loggers": {
            "litellm_budget_plugin": {**to_stderr, "level": "INFO"},
            "litellm_budget_plugin.server.access": {"level": "INFO" if every_request else "WARNING"},
            "uvicorn": {**to_stderr, "level": "INFO"},
        },
    }


class AccessLog:
    """ASGI middleware: logs each request, as a WARNING if it was refused and as an ERROR if the server failed."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})
        began, status = time.monotonic(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except ClientDisconnect:
            # The client has disconnected, so nothing is answered.
            status = CLIENT_GONE
        finally:
            level = logging.ERROR if status >= 500 else logging.WARNING if status >= 400 else logging.INFO
            if _logger.isEnabledFor(level):
                _write(scope, level, status, time.monotonic() - began)


def _write(scope: MutableMapping[str, Any], level: int, status: int, seconds: float) -> None:
    said = {
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "milliseconds": round(seconds * 1000, 1),
        "key": scope["state"].get("key"),
        "client": scope["client"][0] if scope.get("client") else None,
    }
    # The path is logged with repr(): text from a client must not start a new line.
    _logger.log(level, "%s %r %d", said["method"], said["path"], status, extra={"said": said})
