"""Python imports this at its start, because `litellm-budget run` has put this directory in front of PYTHONPATH.

It watches for LiteLLM, then gives way to the application's own `sitecustomize`, wherever that lies.
"""

from __future__ import annotations

import os
import sys

from litellm_budget_import_hook import watch  # type: ignore[import-not-found]

watch()

# It stays in the path: a program may hand its path on to another Python.
_here = os.path.dirname(__file__)
_position = sys.path.index(_here)
_ours = sys.modules.pop(__name__)
del sys.path[_position]
try:
    import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
except ImportError as error:
    if error.name != __name__:
        raise
finally:
    sys.path.insert(_position, _here)
    # The import that has loaded this looks for a module of its name.
    sys.modules.setdefault(__name__, _ours)
