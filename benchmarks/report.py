"""The rows of the results, and two ways to print them."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

COLUMNS = ("what", "measured", "against", "ratio", "aim", "met")


@dataclass(frozen=True)
class Row:
    """One figure. `against` is the figure that it is compared with in the same run; `met` is None if there is no aim."""

    what: str
    measured: str
    against: str
    ratio: str
    aim: str = "-"
    met: bool | None = None

    def cells(self) -> tuple[str, ...]:
        """Return the cells in the order of COLUMNS."""
        met = "" if self.met is None else ("yes" if self.met else "NO")
        return self.what, self.measured, self.against, self.ratio, self.aim, met


@dataclass(frozen=True)
class Section:
    """The result of one benchmark. `text` says what it measures; `missed` says why an aim is out of reach, if that is known."""

    name: str
    text: str
    rows: Sequence[Row]
    seconds: float
    missed: str = ""

    @property
    def misses(self) -> bool:
        """Whether any aim was missed."""
        return any(row.met is False for row in self.rows)

    def plain(self) -> str:
        """Return the section as text for a terminal."""
        table = [COLUMNS, *(row.cells() for row in self.rows)]
        widths = [max(len(line[column]) for line in table) for column in range(len(COLUMNS))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in table]
        note = [f"  {self.missed}"] if self.misses and self.missed else []
        return "\n".join([f"== {self.name} ({self.seconds:.0f} s)", *(f"  {line}" for line in lines), *note, ""])

    def markdown(self) -> str:
        """Return the section as Markdown for docs/benchmarks.md."""
        lines = [COLUMNS, ("---",) * len(COLUMNS), *(row.cells() for row in self.rows)]
        table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        note = f"\n\nMissed: {self.missed}" if self.misses and self.missed else ""
        return f"## {self.name}\n\n{self.text}\n\n{circumstances()}\n\n{table}{note}\n"


def duration(seconds: float) -> str:
    """Return a time with three significant digits."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def circumstances() -> str:
    """Return the date, the machine and the versions."""
    system = f"{platform.system()} {platform.release()}, {_processor()}, {os.cpu_count()} cores"
    return (
        f"{datetime.now(timezone.utc):%Y-%m-%d}; {system}; Python {platform.python_version()}; "
        f"SQLite {sqlite3.sqlite_version}; LiteLLM {installed('litellm')}; "
        f"litellm-budget-plugin {installed('litellm-budget-plugin')}"
    )


def installed(package: str) -> str:
    """Return the version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


HEAD = """# Benchmarks

Written by `python -m benchmarks --markdown [NAME...]`, which replaces the named sections. Each ratio compares two things that
were measured in turn within one run, so the machine's load cancels out. Times are medians.
"""


def document(before: str, sections: Sequence[Section]) -> str:
    """Return docs/benchmarks.md with these sections in place of those of the same name; new ones come last."""
    parts = [part for part in re.split(r"^(?=## )", before, flags=re.MULTILINE) if part.startswith("## ")]
    kept = {part.partition("\n")[0].removeprefix("## "): part.rstrip() + "\n" for part in parts}
    kept |= {section.name: section.markdown() for section in sections}
    return "\n".join([HEAD, *kept.values()])
