"""`python -m benchmarks [NAME...] [--markdown]`: run the benchmarks, print their tables, and write them to the document."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from benchmarks.isolated import run_isolated
from benchmarks.report import circumstances, document

NAMES = (
    "caller",
    "prompt",
    "store",
    "redis",
    "postgres",
    "slices",
    "server",
    "users",
    "contention",
    "pause",
    "metrics",
    "alerts",
    "manager",
    "overspend",
    "budgets",
    "phantom",
    "start",
)
DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"


def main() -> int:
    """Run the named benchmarks, one after the other."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure what the plugin costs and prevents."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(NAMES)}; default: all")
    parser.add_argument("--markdown", action="store_true", help="also write their sections of docs/benchmarks.md")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(NAMES))
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    load = f"; load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{circumstances()}{load}\n", flush=True)
    sections = []
    for name in arguments.names or NAMES:
        sections.append(run_isolated(name))
        print(sections[-1].plain(), flush=True)
    if arguments.markdown:
        DOCUMENT.write_text(document(DOCUMENT.read_text("utf-8"), sections), encoding="utf-8")
        print(f"written: {DOCUMENT}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
