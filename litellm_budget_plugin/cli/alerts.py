"""litellm-budget alerts: tests whether alerts reach their receivers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

import click

from litellm_budget_plugin.cli.table import show
from litellm_budget_plugin.manager.alerts.alert import plain_alert
from litellm_budget_plugin.manager.alerts.channels import Channel, NotSent, Webhook, channels_of
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.settings import BudgetSettings

_SECONDS = 20.0


@click.group()
def alerts() -> None:
    """Test alerts."""


@alerts.command("test")
@click.option("--json", "as_json", is_flag=True, help="JSON, one object a line.")
def test(as_json: bool) -> None:
    """Send a test message to each configured channel, and show the results.

    Exits with 1 if a channel did not accept it, or if alerts are off. A function of the application (on_alert) cannot be tried from here.
    """
    settings = BudgetSettings()
    if settings.alert_per_cents is None:
        raise click.ClickException("alerts are off (LITELLM_BUDGET_ALERT_AT=off): none is sent")
    text = "this is a test: alerts about budgets reach you here"
    alert = plain_alert("test", settings.project, text, datetime.now(timezone.utc), new_id())

    def tried(channel: Channel, label: str) -> dict[str, Any]:
        try:
            channel.send(alert, _SECONDS)
        except NotSent as error:
            return {"channel": label, "sent": False, "what_happened": str(error)}
        return {"channel": label, "sent": True, "what_happened": "sent"}

    channels = channels_of(settings)
    results = [tried(channel, label) for channel, label in zip(channels, _labels(channels, settings.alert_webhooks))]
    show(results, as_json)
    if settings.alert_webhooks and settings.alert_secret is None:
        click.echo("webhooks are not signed: no signing key is set (docs/how-to/get-alerts.md)", err=True)
    if not all(result["sent"] for result in results):
        raise click.exceptions.Exit(1)


def _labels(channels: Sequence[Channel], urls: Sequence[str]) -> Iterator[str]:
    """Yield the name of each channel. Several webhooks are named by their places in the setting, their hosts and ports."""
    places = iter(enumerate(urls, 1))
    for channel in channels:
        if isinstance(channel, Webhook) and len(urls) > 1:
            number, url = next(places)
            parts = urlsplit(url)
            yield f"webhook {number} {parts.hostname}:{parts.port or (443 if parts.scheme.lower() == 'https' else 80)}"
        else:
            yield channel.label
