"""Each framework in an environment of its own, really installed, against a provider on loopback:

    python -m tests.frameworks                      # all of them
    python -m tests.frameworks langchain dspy       # these
    python -m tests.frameworks --lightest           # the three that are quickest to install and run
    python -m tests.frameworks --record langchain   # and keep what was measured in results.json
    python -m tests.frameworks --table              # write the table of docs/frameworks.md from results.json
    python -m tests.frameworks --list

Environments are kept in .frameworks/, so that the second run starts at once; remove a folder there for newer versions. A framework fails
if one of its ways does not do what its module says, or a block of its page in docs/use-with does not run. What differs from
results.json otherwise, such as the class of an exception, is told.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.frameworks import table
from tests.frameworks.environments import environment
from tests.frameworks.framework import HELPER
from tests.frameworks.measure import framework
from tests.pages import ROOT

LIGHTEST = ["instructor", "fastapi", "openai_agents"]
LONGEST = 600


def _run(python: Path, module: str, *arguments: str) -> None:
    variables = {name: text for name, text in os.environ.items() if not name.startswith(("LITELLM_", "OPENAI_"))}
    command = [str(python), "-m", f"tests.frameworks.{module}", *arguments]
    subprocess.run(command, cwd=ROOT, env=variables, check=True, timeout=LONGEST)


def _changed(then: dict[str, Any] | None, now: dict[str, Any]) -> list[str]:
    """Return the differences from an earlier run, except for versions, times, and the number of a helper's calls that had begun."""
    if then is None:
        return []
    known = {way["way"]: way for way in then["ways"]}
    return [
        f"{way['way']}: {key} was {known[way['way']].get(key)!r}, is {way[key]!r}"
        for way in now["ways"]
        if way["way"] in known
        for key in ("sees", "refusal_in", "attempts")
        if (key, way["kind"]) != ("attempts", HELPER) and known[way["way"]].get(key) != way.get(key)
    ]


def _one(name: str, results: dict[str, Any]) -> dict[str, Any]:
    """Measure a framework and run its page. Return the measured facts."""
    declared = framework(name)
    began = time.monotonic()
    python = environment(name, declared.requires)
    installed = time.monotonic()
    print(f"{declared.title}:", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        _run(python, "measure", name, str(result))
        facts: dict[str, Any] = json.loads(result.read_text())
    _run(python, "run_page", name, str(table.page(name)))
    for line in _changed(results.get(name), facts):
        print(f"  differs from results.json: {line}")
    ended = time.monotonic()
    print(f"  installed in {installed - began:.0f} s, ran in {ended - installed:.0f} s", flush=True)
    return facts


def main(arguments: list[str]) -> int:
    """Measure the named frameworks. Return the number of those that fail, or 2 for bad arguments."""
    options = {argument for argument in arguments if argument.startswith("-")}
    names = [argument.replace("-", "_") for argument in arguments if argument not in options]
    known = table.names()
    if options - {"--list", "--table", "--record", "--lightest"} or set(names) - set(known):
        print(__doc__)
        return 2
    if "--list" in options:
        print("\n".join(known))
        return 0
    results = table.results()
    failing = []
    if names or options - {"--table"} or not options:
        for name in names or (LIGHTEST if "--lightest" in options else known):
            try:
                facts = _one(name, results)
            except (subprocess.SubprocessError, OSError) as error:
                print(f"{name} fails: {error}", flush=True)
                failing.append(name)
                continue
            if "--record" in options:
                results[name] = facts
                table.keep(results)
    if "--table" in options:
        table.write(results)
    if failing:
        print(f"failing: {', '.join(failing)}")
    return len(failing)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
