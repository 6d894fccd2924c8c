"""litellm-budget serve: runs the self-hosted endpoint."""

from __future__ import annotations

import ipaddress
from contextlib import closing

import click

from litellm_budget_plugin.cli.ledgers import opened
from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreUnavailable
from litellm_budget_plugin.server.keys import list_keys
from litellm_budget_plugin.server.options import ServerOptions
from litellm_budget_plugin.settings import BudgetSettings, url_from
from litellm_budget_plugin.stores.registry import masked

_EXTRA = ("fastapi", "uvicorn", "jinja2", "starlette")


@click.command()
@click.argument("store", required=False)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; any but loopback needs a key."
)
@click.option("--port", default=8321, show_default=True, type=click.IntRange(0, 65535), help="0: any free port.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 256), help="Processes.")
@click.option("--root-path", default="", metavar="/PATH", help="Path under which a proxy publishes the server.")
@click.option(
    "--behind-tls", is_flag=True, help="Browsers reach the server by https: cookies are sent over https only."
)
@click.option(
    "--proxies",
    default="",
    callback=lambda _context, _parameter, value: _proxies(value),
    help="Addresses and networks of proxies, separated by commas: only their X-Forwarded-For is trusted.",
)
@click.option(
    "--rate",
    default=2000.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Requests a second for each key and worker; 0: no limit.",
)
@click.option(
    "--log",
    "log_format",
    default="json",
    show_default=True,
    type=click.Choice(["json", "text"]),
    help="Format of the log.",
)
@click.option("--open-metrics", is_flag=True, help="Serve /metrics, of all projects, without a key.")
@click.option("--log-requests", is_flag=True, help="Log every request, not only those that failed.")
def serve(  # noqa: PLR0917  # click calls it by names
    store: str | None,
    host: str,
    port: int,
    workers: int,
    root_path: str,
    behind_tls: bool,
    proxies: list[str],
    rate: float,
    log_format: str,
    open_metrics: bool,
    log_requests: bool,
) -> None:
    """Serve the ledger at STORE, a URL or env:NAME for the environment variable that holds one; without it, at
    LITELLM_BUDGET_STORE_URL.

    Callbacks reach it with LITELLM_BUDGET_STORE_URL=http://this-host:8321 and LITELLM_BUDGET_API_KEY, LiteLLM's own
    BudgetManager with client_type="hosted" and api_base; people use a browser. For subjects
    without limits of their own, the pages show the limits of the environment and of LITELLM_BUDGET_FILE; those of whole scopes
    only until calls bring theirs.
    """
    settings = BudgetSettings()
    url = settings.url if store is None else url_from(store)
    if url.lower().startswith(("http:", "https:")):
        raise click.UsageError(f"{masked(url)} is an endpoint itself; serve a file, PostgreSQL or Redis")
    if root_path and (not root_path.startswith("/") or root_path.endswith("/")):
        raise click.UsageError(f"--root-path must be like /budgets, got {root_path!r}")
    try:
        from litellm_budget_plugin.server.serving import Listening, is_loopback
        from litellm_budget_plugin.server.serving import serve as run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise click.ClickException(
            f"serve needs {error.name}; run: pip install 'litellm-budget-plugin[server]'"
        ) from None
    settings.read_policy()  # a mistake in the file stops the start here, and not in every worker
    _check_store(url, host, need_key=not is_loopback(host))
    options = ServerOptions(
        store_url=url,
        store_timeout=settings.store_timeout * 8,
        settings=settings,
        open_access=is_loopback(host),
        root_path=root_path,
        behind_tls=behind_tls,
        rate=rate,
        open_metrics=open_metrics,
        retention=settings.retention,
    )
    try:
        run(options, Listening(host, port, workers, proxies, log_format == "json", log_requests))
    except BudgetInputError as error:
        raise click.UsageError(str(error)) from error


def _proxies(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        try:
            everybody = ipaddress.ip_network(name, strict=False).prefixlen == 0
        except ValueError:
            raise click.BadParameter(f"{name!r} is not an IP address or a network like 10.0.0.0/8") from None
        if everybody:
            raise click.BadParameter(f"{name} is every address; name the proxies")
    return names


def _check_store(url: str, host: str, *, need_key: bool) -> None:
    if url.lower().startswith("memory:"):
        if need_key:
            raise click.UsageError("memory:// has no keys, so it is served on loopback only")
        return
    try:
        with closing(opened(url, new=True)) as store:
            if need_key and next(list_keys(store), None) is None:
                raise click.ClickException(
                    f"everybody who reaches {host} could change every budget: there is no key yet. Make one: "
                    "litellm-budget keys create STORE --project NAME"
                )
    except BudgetStoreUnavailable as error:
        # The server starts without the store, which may start later. Until then nobody gets in without a key.
        click.echo(f"the store does not answer yet: {error}", err=True)
