"""A process that copies a ledger in small pages and prints a line for each, for tests that kill it.

python -m tests.stores.copier SOURCE TARGET
"""

from __future__ import annotations

import sys

from litellm_budget_plugin.stores import copying
from litellm_budget_plugin.stores.registry import open_store

if __name__ == "__main__":
    copying._PAGE = 7
    stores = [open_store(url, timeout=30.0) for url in sys.argv[1:3]]
    copying.copy(*stores, progress=lambda progress: print(progress.step, progress.rows, flush=True))
    for store in stores:
        store.close()
    print("done")
