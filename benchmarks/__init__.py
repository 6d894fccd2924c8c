"""Benchmarks of the plugin's cost and effect, compared with LiteLLM alone, bare SQLite and other packages.

`python -m benchmarks` prints the tables. Each figure is a ratio of two things that are measured in turn within one run.
"""

from __future__ import annotations

import os

# Set before LiteLLM is imported anywhere, because the benchmarks use no network except loopback.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
