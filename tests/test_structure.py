"""The package's structure: import directions, public names, and the contents of the wheel."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import litellm_budget_plugin

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "litellm_budget_plugin"

# Each part of the package, and the other parts that it may import.
BELOW = {
    "errors": set(),
    "core": {"errors"},
    "policy": {"errors", "core"},
    "budget_file": {"errors", "core", "policy"},
    "settings": {"errors", "core", "policy", "budget_file"},
    "stores": {"errors", "core"},
    "pricing": {"errors", "core"},
    "metrics": {"errors", "core"},
    "manager": {"errors", "core", "policy", "settings", "stores", "pricing", "metrics"},
    "hooks": {"errors", "core", "policy", "settings", "stores", "pricing", "manager"},
    "proxy": {"hooks"},
    "testing": {"errors", "core", "settings", "stores", "manager", "hooks"},
    "pytest_plugin": {"testing"},
    # Imported together with LiteLLM.
    "startup": {"hooks", "settings"},
    "auto": {"startup"},
    "environment": {"errors", "settings", "manager"},
    "server": {"errors", "core", "policy", "settings", "stores", "manager", "metrics"},
    "cli": {
        "errors",
        "core",
        "policy",
        "budget_file",
        "settings",
        "stores",
        "pricing",
        "manager",
        "hooks",
        "server",
        "environment",
    },
    "__main__": {"cli"},
    "web": {"errors", "core", "manager", "hooks"},
    "asgi": {"errors", "web"},
    "wsgi": {"errors", "web"},
}


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update(
                {node.module}
                if node.module != "litellm_budget_plugin"
                else {f"litellm_budget_plugin.{alias.name}" for alias in node.names}
            )
    return names


def _room(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards_only(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room == "__init__":
        return
    ours = {_room(name) for name in _imports(path) if name.startswith("litellm_budget_plugin.")}
    assert ours - {room} <= BELOW[room]


def test_only_the_settings_read_the_environment() -> None:
    readers = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if re.search(r"os\.(environ|getenv)", path.read_text())
    ]
    # pricing/tokens.py reads LiteLLM's own variable for the place of its tokenizer. environment.py prepares the environment of a
    # program. litellm_budget_arming.py also runs in interpreters without settings.py.
    assert sorted(readers) == [
        "environment.py",
        "pricing/tokens.py",
        "settings.py",
        "startup/litellm_budget_arming.py",
    ]


def _sets_something_of_litellm(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) == "setattr" and ast.unparse(node.args[0]).startswith("litellm")
    targets = node.targets if isinstance(node, ast.Assign) else []
    return any(isinstance(target, ast.Attribute) and ast.unparse(target).startswith("litellm.") for target in targets)


def test_only_the_hooks_patch_litellm() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] != "hooks":
            assert not any(_sets_something_of_litellm(node) for node in ast.walk(ast.parse(path.read_text()))), path


def test_the_public_names_are_what_can_be_imported() -> None:
    assert litellm_budget_plugin.__all__ == sorted(litellm_budget_plugin.__all__)
    for name in litellm_budget_plugin.__all__:
        assert getattr(litellm_budget_plugin, name).__name__ == name
    with pytest.raises(AttributeError, match="no_such_name"):
        litellm_budget_plugin.no_such_name  # noqa: B018
    assert set(litellm_budget_plugin.__all__) <= set(dir(litellm_budget_plugin))


def test_generated_tests_run_as_many_examples_as_their_profile_says() -> None:
    tests = [path for path in (ROOT / "tests").rglob("*.py") if path.name not in ("generated.py", Path(__file__).name)]
    assert [path.name for path in tests if "max_examples" in path.read_text("utf-8")] == []


def test_core_does_no_input_or_output() -> None:
    for path in (PACKAGE / "core").rglob("*.py"):
        assert _imports(path).isdisjoint({"os", "time", "socket", "sqlite3", "litellm", "threading", "logging"}), path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(ROOT)],
        check=True,
        capture_output=True,
    )
    return next(target.glob("*.whl"))


def test_the_wheel_contains_the_package_and_no_start_up_file(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if name.endswith(".pth")]
    assert {name.split("/")[0] for name in names} == {"litellm_budget_plugin", names[-1].split("/")[0]}
    in_tree = {
        f"litellm_budget_plugin/{path.relative_to(PACKAGE)}"
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert in_tree <= set(names)
    assert "litellm_budget_plugin/py.typed" in names


def test_the_wheel_works_without_the_tree(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    site = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    zipfile.ZipFile(wheel).extractall(site)
    # The package's dependencies come from this environment; the package itself must not.
    others = [path for path in sys.path if path.endswith("site-packages")]
    program = (
        "import litellm_budget_plugin as package, sys\n"
        f"assert package.__file__.startswith({str(site)!r}), package.__file__\n"
        "from litellm_budget_plugin import BudgetCallback, BudgetExceeded\n"
        "import litellm\n"
        "litellm.callbacks = [BudgetCallback(store_url='sqlite:///ledger.db', default_limit='0.001')]\n"
        "call = dict(model='gpt-4o', messages=[{'role': 'user', 'content': 'x'}], user='alice', mock_response='hi')\n"
        "litellm.completion(**call, max_tokens=10)\n"
        "try:\n"
        "    litellm.completion(**call, max_tokens=1000)\n"
        "except BudgetExceeded:\n"
        "    print('refused')\n"
    )
    done = subprocess.run(
        [str(tmp_path / "venv" / "bin" / "python"), "-c", program],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *others])},
    )
    assert done.stdout.splitlines()[-1] == "refused"
