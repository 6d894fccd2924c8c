"""What every test relies on: LiteLLM without network, and an environment without this package's settings."""

from __future__ import annotations

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
for name in [name for name in os.environ if name.upper().startswith("LITELLM_BUDGET_")]:
    del os.environ[name]
