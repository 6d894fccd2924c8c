"""The bodies of webhook requests: the formats of Slack, Teams and Discord, and signed JSON for all other receivers."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any
from urllib.parse import urlsplit

from litellm_budget_plugin.manager.alerts.alert import Alert

SIGNATURE, TIMESTAMP = "X-Litellm-Budget-Signature", "X-Litellm-Budget-Timestamp"
_SLACK = ("hooks.slack.com", "hooks.slack-gov.com")
_DISCORD = ("discord.com", "discordapp.com")
_TEAMS = ("webhook.office.com", "logic.azure.com", "api.powerplatform.com", "office365.com")
_MOST_TEXT = 1900
"""Discord accepts at most 2,000 characters."""


def message_for(alert: Alert, url: str, secret: str | None, now: int) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of the request that sends `alert` to `url`, at `now` (seconds since 1970)."""
    body = json.dumps(_body(alert, (urlsplit(url).hostname or "").lower())).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "litellm-budget"}
    if secret is not None:
        headers[TIMESTAMP] = str(now)
        headers[SIGNATURE] = f"sha256={signature(secret, now, body)}"
    return body, headers


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """Return the HMAC-SHA256 of the timestamp, a dot and the body, in hexadecimal digits."""
    return hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


def _body(alert: Alert, host: str) -> dict[str, Any]:
    text = readable(f"{alert.title}: {alert.text}")[:_MOST_TEXT]
    if host in _SLACK:
        # Without these characters the text cannot contain a link, a channel or a mention.
        escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return {"text": escaped, "unfurl_links": False, "unfurl_media": False}
    if _is_at(host, _DISCORD):
        return {"content": text, "allowed_mentions": {"parse": []}, "flags": 4}
    if _is_at(host, _TEAMS):
        # A TextRun is shown unchanged; a TextBlock would be rendered as Markdown, with links.
        run = {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text}]}
        card = {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "body": [run],
        }
        content_type = "application/vnd.microsoft.card.adaptive"
        return {"type": "message", "attachments": [{"contentType": content_type, "content": card}]}
    return alert.as_dict()


def _is_at(host: str, domains: tuple[str, ...]) -> bool:
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)


def readable(text: str) -> str:
    """Return `text` with unprintable characters replaced, because they could add a mail header or a log line."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
