"""Run the tests of everything that depends on LiteLLM with several of its versions, each in its own environment:

    python -m tests.compatibility                    # the lowest version that pyproject.toml accepts, and the newest
    python -m tests.compatibility 1.105.0 newest     # these versions; a nightly run of `newest` finds new functions

Environments are kept in .compatibility/, so that the second run starts at once. They do not contain the proxy, which cannot be
installed for every version, so the tests in tests/proxy are left out.
"""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = ROOT / ".compatibility"
TESTS = ("tests/hooks", "tests/surface", "tests/edge")
NEWEST = "newest"


def lowest() -> str:
    """Return the lowest version of LiteLLM that pyproject.toml accepts."""
    found = re.search(r'"litellm>=([\d.]+)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    assert found
    return found[1]


def environment(version: str) -> Path:
    """Return the Python of an environment with this LiteLLM and the tests' requirements. For NEWEST, LiteLLM is updated first."""
    folder = ENVIRONMENTS / version
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    litellm = ["-U", "litellm"] if version == NEWEST else [f"litellm=={version}"]
    command = [str(python), "-m", "pip", "install", "-q", "-e", f"{ROOT}[test]", *litellm]
    subprocess.run(command, check=True)
    return python


def main(versions: list[str]) -> int:
    """Run the tests with each version, and return how many versions fail."""
    failing = []
    for version in versions:
        python = str(environment(version))
        said = "import importlib.metadata; print('LiteLLM', importlib.metadata.version('litellm'), flush=True)"
        subprocess.run([python, "-c", said], check=True)
        command = [python, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider", *TESTS]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            failing.append(version)
    if failing:
        print(f"failing: {', '.join(failing)}")
    return len(failing)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or [lowest(), NEWEST]))
