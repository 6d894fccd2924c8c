"""Run in a framework's environment: the Python blocks of its page, from top to bottom, against the provider on loopback.

python -m tests.frameworks.run_page NAME PAGE.md
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.frameworks.measure import framework
from tests.frameworks.provider import Provider
from tests.pages import failure, python_blocks


def main(name: str, page: str) -> None:
    """Run the page, and exit with 1 if something went wrong."""
    declared = framework(name)
    provider = Provider(declared.answer)
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update({**provider.environment(folder), **declared.variables})
        wrong = failure(page, python_blocks(Path(page)), Path(folder))
    print(wrong, file=sys.stderr, flush=True)
    # Threads that a framework leaves behind must not keep this process alive.
    os._exit(1 if wrong else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
