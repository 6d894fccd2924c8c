"""litellm-budget check: checks a budget file before it is deployed."""

from __future__ import annotations

import json

import click

from litellm_budget_plugin.budget_file import read_file
from litellm_budget_plugin.core.windows import checked_zone


@click.command()
@click.argument("file")
@click.option(
    "--timezone", default="UTC", show_default=True, metavar="ZONE", help="LITELLM_BUDGET_TIMEZONE of the service."
)
@click.option("--json", "as_json", is_flag=True, help="JSON, one object.")
def check(file: str, timezone: str, as_json: bool) -> None:
    """Check the budget file FILE, in TOML or YAML.

    Exits with 0 if a service would accept it, else with 1, and shows the line and key of the first mistake. A model that LiteLLM does not know is
    a warning.
    """
    policy = read_file(file, checked_zone(timezone), {})
    from litellm_budget_plugin.pricing.known_models import unknown_models

    warnings = unknown_models(policy.models())
    tables = (*policy.scopes.values(), *policy.subjects.values(), *policy.classes.values())
    limits = sum(len(table.limits or ()) for table in tables)
    if as_json:
        click.echo(json.dumps({"file": file, "limits": limits, "tables": len(tables), "warnings": warnings}))
        return
    for warning in warnings:
        click.echo(f"warning: {file}: {warning}", err=True)
    said = (
        f"{limits} {'limit' if limits == 1 else 'limits'} in {len(tables)} {'table' if len(tables) == 1 else 'tables'}"
    )
    click.echo(f"{file}: no mistakes; {said}")
