"""The options of a server, which it passes to its workers. Each worker is a process."""

from __future__ import annotations

from dataclasses import dataclass, field

from litellm_budget_plugin.settings import BudgetSettings

MIB = 1024 * 1024


@dataclass(frozen=True)
class ServerOptions:
    """Options of `litellm-budget serve`; picklable. Their repr has no secret.

    - `store_url`: the ledger. `store_timeout` (seconds) bounds every command.
    - `settings`: the limits that are set outside of the ledger, for pages, for LiteLLM's protocol and for commands in sentences.
      Their file is read again when it changes. Other commands bring their own limits.
    - `open_access`: everybody who reaches the server may do everything while it has no key. Only ever on loopback.
    - `root_path`: the path under which a proxy serves the server, "" or like "/budgets".
    - `behind_tls`: browsers use https to reach the server, so that its cookies are for https only.
    - `max_body` (bytes), `body_seconds`: the largest body of a request, and the time in which it must arrive.
    - `rate`: requests a second for each key in each worker, averaged over some seconds; 0 is no limit.
    - `open_metrics`: everybody who reaches the server may read /metrics, of all projects, without a key.
    - `retention`: days for which settled calls are kept.
    - `test_clock`: commands bring their own time and windows. No server with real users may accept that.
    """

    store_url: str = field(repr=False)
    store_timeout: float = 2.0
    settings: BudgetSettings | None = None
    open_access: bool = False
    root_path: str = ""
    behind_tls: bool = False
    max_body: int = 4 * MIB
    body_seconds: float = 10.0
    rate: float = 2000.0
    open_metrics: bool = False
    retention: float = 30.0
    test_clock: bool = False
