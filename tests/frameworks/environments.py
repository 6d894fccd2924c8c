"""An environment for each framework, in .frameworks/, with the framework from the registry and this checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from tests.pages import ROOT

ENVIRONMENTS = ROOT / ".frameworks"


def environment(name: str, requires: tuple[str, ...]) -> Path:
    """Return the Python of an environment with this checkout and the framework's requirements. The environment is made if it
    does not exist or has other requirements.
    """
    folder = ENVIRONMENTS / name.replace("_", "-")
    python, has = folder / "bin" / "python", folder / "requires.txt"
    wanted = "\n".join(requires)
    if has.exists() and has.read_text() == wanted:
        return python
    packages = ["-e", str(ROOT), *requires]
    beside = Path(sys.executable).with_name("uv")
    if uv := shutil.which("uv") or (str(beside) if beside.exists() else None):
        subprocess.run([uv, "venv", "-q", "--allow-existing", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", str(python), *packages], check=True)
    else:
        if not python.exists():
            venv.create(folder, with_pip=True, symlinks=os.name != "nt")
        subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
    has.write_text(wanted)
    return python
