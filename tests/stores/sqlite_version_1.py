"""Write sqlite_version_1.json.gz: a file of version 0.1.0 as SQL, and the rows that it exported.

Run it with the code of that version (commit 017f537): PYTHONPATH=/path/of/that/checkout python -P sqlite_version_1.py
"""

from __future__ import annotations

import gzip
import json
import random
import runpy
import sqlite3
import tempfile
from pathlib import Path

from litellm_budget_plugin.stores.registry import open_store

FILE = Path(__file__).with_suffix(".json.gz")
PROJECTS = ("app", "größe {1}")


def main() -> None:
    shared = runpy.run_path(str(Path(__file__).with_name("redis") / "version_1.py"))
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/ledger.db"
        store = open_store(f"sqlite:///{path}", test_clock=True)
        for place, project in enumerate(PROJECTS):
            shared["fill"](store, project, random.Random(place), 150)
        rows = {project: shared["rows_of"](store, project) for project in PROJECTS}
        store.close()
        connection = sqlite3.connect(path)
        found = {"sql": "\n".join(connection.iterdump()), "rows": rows}
        found["version"] = connection.execute("PRAGMA user_version").fetchone()[0]
        found["application"] = connection.execute("PRAGMA application_id").fetchone()[0]
        connection.close()
    FILE.write_bytes(gzip.compress(json.dumps(found, ensure_ascii=False, sort_keys=True).encode(), mtime=0))


if __name__ == "__main__":
    main()
