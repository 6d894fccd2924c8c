"""litellm-budget alerts: whether alerts reach their receivers."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import click

from litellm_budget_plugin.cli.table import show
from litellm_budget_plugin.manager.alerts.alert import plain_alert
from litellm_budget_plugin.manager.alerts.channels import Channel, NotSent, channels_of
from litellm_budget_plugin.manager.ids import new_id
from litellm_budget_plugin.settings import BudgetSettings

_SECONDS = 20.0


@click.group()
def alerts() -> None:
    """Look after alerts."""


@alerts.command("test")
@click.option("--json", "as_json", is_flag=True, help="JSON, one object a line.")
def test(as_json: bool) -> None:
    """Send a test message to each channel that is configured, and say what happened.

    Exits with 1 if a channel did not take it. A function of the application (on_alert) cannot be tried from here.
    """
    settings = BudgetSettings()
    text = "this is a test: alerts about budgets reach you here"
    alert = plain_alert("test", settings.project, text, datetime.now(timezone.utc), new_id())

    def tried(channel: Channel) -> dict[str, Any]:
        try:
            channel.send(alert, _SECONDS)
        except NotSent as error:
            return {"channel": channel.label, "sent": False, "what_happened": str(error)}
        return {"channel": channel.label, "sent": True, "what_happened": "sent"}

    results = [tried(channel) for channel in channels_of(settings)]
    show(results, as_json)
    if not all(result["sent"] for result in results):
        raise click.exceptions.Exit(1)
