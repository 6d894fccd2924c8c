"""What the plugin costs and what it prevents, measured beside LiteLLM alone, bare SQLite and other packages.

`python -m benchmarks` prints the table. Each figure is a ratio of two things measured in turn within one run.
"""

from __future__ import annotations

import os

# Before LiteLLM is imported anywhere: the only network that the benchmarks use is loopback.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
