"""`import litellm_budget_plugin.auto`, and processes in which budgets cannot be enforced."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from collections.abc import Iterator
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from litellm_budget_plugin.environment import STARTUP
from litellm_budget_plugin.startup import sitecustomize
from tests.warm import in_processes
from tests.zero.desk import CALLS, CHARGED_THEN_REFUSED, NO_LITELLM, charged, environment, hooked, run

FAILS_ONCE = """
import json, sys, threading
import litellm_budget_plugin.auto

assert "pydantic" not in sys.modules and "typing" not in sys.modules and "litellm" not in sys.modules

class FailsOnce:
    def find_spec(self, name, path=None, target=None):
        if name == "litellm.main":
            sys.meta_path.remove(self)
            raise ImportError("half of LiteLLM is imported by now")

sys.meta_path.insert(0, FailsOnce())
try:
    import litellm
except ImportError as error:
    assert "half" in str(error), error
else:
    raise AssertionError
# LiteLLM's modules do not bear to be imported a second time by a first one that is new.
for name in [name for name in sys.modules if name.partition(".")[0] == "litellm"]:
    del sys.modules[name]

def use(number, found):
    if number % 2:
        import litellm_budget_plugin.auto
    from litellm import completion
    found.append(become(completion, f"user-{number}"))

from calls import become
found = []
threads = [threading.Thread(target=use, args=(number, found)) for number in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
import litellm
assert [type(each).__name__ for each in litellm.callbacks] == ["AutomaticCallback"], litellm.callbacks
print(json.dumps(found))
"""


def test_an_import_that_failed_halfway_and_is_tried_again_by_threads(tmp_path: Path) -> None:
    (tmp_path / "calls.py").write_text(CALLS)
    given = environment(tmp_path, LITELLM_BUDGET_USER_LIMITS="1 calls")
    done = run([sys.executable, "-c", FAILS_ONCE], tmp_path, given)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [CHARGED_THEN_REFUSED] * 6, done.stderr
    assert [charged(tmp_path / "litellm_budget.db", f"user-{number}")[0] for number in range(6)] == [1] * 6


def _with_one_of_its_own(directory: Path, listed: str) -> dict[str, Any]:
    import os

    import litellm

    os.chdir(directory)
    os.environ |= {"LITELLM_BUDGET_STORE_URL": "sqlite:///ledger.db", "LITELLM_BUDGET_USER_LIMITS": "1 calls"}
    sys.path.insert(0, str(directory))
    from calls import become  # type: ignore[import-not-found]

    import litellm_budget_plugin.auto
    from litellm_budget_plugin import BudgetCallback

    (automatic,) = litellm.callbacks
    own = BudgetCallback(user_limits="3 calls", store_url="sqlite:///own.db")
    lists = {"nothing": [], "both": [automatic, own], "own": [own], "automatic": [automatic]}
    litellm.callbacks = lists[listed]
    said = become(litellm.completion, "alice")
    own.close()
    after = become(litellm.completion, "alice")
    litellm_budget_plugin.auto.watch()
    return {"said": said, "after": after, "listed": litellm.callbacks.count(automatic)}


@pytest.mark.parametrize("listed", ["nothing", "both", "own", "automatic"])
def test_a_callback_of_the_applications_own_acts_while_it_is_open(listed: str, tmp_path: Path) -> None:
    (tmp_path / "calls.py").write_text(CALLS)
    (found,) = in_processes(1, _with_one_of_its_own, tmp_path, listed)
    assert found == {"said": ["Hello!", "Hello!"], "after": CHARGED_THEN_REFUSED, "listed": 1}
    assert charged(tmp_path / "own.db", "alice")[0] == 2
    assert charged(tmp_path / "ledger.db", "alice")[0] == 1


def _executed_again(how: str) -> list[Any]:
    import importlib
    import os

    import litellm

    os.environ |= {"LITELLM_BUDGET_STORE_URL": "memory://", "LITELLM_BUDGET_USER_LIMITS": "1 calls"}
    import litellm_budget_plugin.auto
    from litellm_budget_plugin.hooks.instrument import in_place, put_back

    assert litellm_budget_plugin.auto
    if how == "reload":
        importlib.reload(litellm)
        return [in_place()[1], *(getattr(litellm.stream_chunk_builder, "__wrapped__", None) is not None for _ in "x")]
    for name in [name for name in sys.modules if name.partition(".")[0] == "litellm" and how in ("all", name)]:
        del sys.modules[name]
    if how == "all":
        import litellm as again

        assert again is not litellm
        return ["not reached"]
    try:
        put_back()
    except Exception as error:
        return [type(error).__name__]
    return ["nothing"]


def test_reloading_litellm_leaves_the_gate_in_place() -> None:
    assert in_processes(1, _executed_again, "reload") == [[(), True]]


@pytest.mark.parametrize("gone", ["litellm.utils", "litellm.litellm_core_utils.litellm_logging", "litellm"])
def test_a_module_of_litellm_that_was_loaded_a_second_time_is_noticed(gone: str) -> None:
    assert in_processes(1, _executed_again, gone) == [["IncompatibleLiteLLMError"]]


SWALLOWED = {
    "ImportError": "try:\n    import litellm\nexcept ImportError:\n    litellm = None\n",
    "Exception": "try:\n    from litellm import completion\nexcept Exception:\n    completion = None\n",
    "everything": "try:\n    import litellm\nexcept:\n    litellm = None\n",
    "again": (
        "for _ in range(3):\n    try:\n        import litellm\n        litellm.completion()\n    except BaseException:\n        pass\n"
    ),
    "submodule": "try:\n    import litellm.types.utils\nexcept BaseException:\n    pass\nimport sys\nassert 'litellm' not in sys.modules\n",
    "thread": (
        "import threading\ndef work():\n    import litellm\n    litellm.completion()\n"
        "thread = threading.Thread(target=work)\nthread.start()\nthread.join()\n"
    ),
    "loop": (
        "import asyncio\nasync def work():\n    import litellm\n    litellm.completion()\n"
        "async def main():\n    print(await asyncio.gather(work(), return_exceptions=True))\nasyncio.run(main())\n"
    ),
    "fork": (
        "import os, sys\nif not os.fork():\n    import litellm\n    litellm.completion()\n    os._exit(0)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))\n"
    ),
    "process": (
        "import multiprocessing, sys\ndef work():\n    import litellm\n    litellm.completion()\n"
        "process = multiprocessing.get_context('fork').Process(target=work)\nprocess.start()\nprocess.join()\nsys.exit(process.exitcode)\n"
    ),
}


@pytest.fixture
def no_litellm(tmp_path: Path) -> Path:
    """A directory with a package that has the name litellm."""
    (tmp_path / "litellm" / "types").mkdir(parents=True)
    (tmp_path / "litellm" / "__init__.py").write_text(NO_LITELLM)
    (tmp_path / "litellm" / "types" / "__init__.py").touch()
    (tmp_path / "litellm" / "types" / "utils.py").touch()
    return tmp_path


@pytest.mark.parametrize("how", SWALLOWED)
def test_no_call_goes_out_and_the_process_ends_with_3(how: str, no_litellm: Path) -> None:
    done = hooked(no_litellm, SWALLOWED[how] + "print('at the end')\n", no_litellm)
    assert done.returncode == 3
    assert done.stderr.count("budgets cannot be enforced") == 1 and "Traceback" not in done.stderr
    assert not (no_litellm / "went-out").exists()
    assert ("at the end" in done.stdout) == (how in ("everything", "again", "submodule"))


def test_what_is_done_before_the_process_ends(no_litellm: Path) -> None:
    program = "try:\n    print('begun', end='')\n    import litellm\nfinally:\n    print(' and cleaned up', end='')\n"
    done = hooked(no_litellm, program, no_litellm)
    assert (done.returncode, done.stdout) == (3, "begun and cleaned up")


def test_pytest_reports_it(no_litellm: Path) -> None:
    (no_litellm / "test_it.py").write_text("import litellm\n\n\ndef test_it():\n    litellm.completion()\n")
    given = environment(STARTUP, no_litellm, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    done = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], no_litellm, given)
    assert done.returncode == 3 and "budgets cannot be enforced" in done.stdout + done.stderr
    assert not (no_litellm / "went-out").exists()


@pytest.mark.parametrize("bad", ["setting", "litellm"])
@pytest.mark.parametrize("place", ["environment", "file"])
def test_with_warn_one_line_says_that_calls_go_out(bad: str, place: str, no_litellm: Path) -> None:
    given = {"LITELLM_BUDGET_ON_START_ERROR": "warn"} | ({"LITELLM_BUDGET_HOLD_TTL": "x"} if bad == "setting" else {})
    if place == "file":
        (no_litellm / ".env").write_text("".join(f"{name}={value}\n" for name, value in given.items()))
        given = {}
    program = "import litellm, importlib; importlib.reload(litellm).completion()"
    done = hooked(no_litellm, program, no_litellm, **given)
    assert (done.returncode, len(done.stderr.splitlines())) == (0, 1), done.stderr
    assert "calls go out" in done.stderr and (no_litellm / "went-out").exists()


def test_an_interpreter_without_the_package_cannot_use_litellm(no_litellm: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "other"], cwd=no_litellm, check=True)
    given = environment() | {"PYTHONPATH": STARTUP}
    other = str(no_litellm / "other" / "bin" / "python")
    assert run([other, "-c", "import json"], no_litellm, given).returncode == 0
    for policy, code in (("stop", 3), ("warn", 0)):
        done = run(
            [other, "-c", "import litellm; litellm.completion()"],
            no_litellm,
            given | {"LITELLM_BUDGET_ON_START_ERROR": policy},
        )
        assert done.returncode == code and f"{other} has no litellm-budget-plugin" in done.stderr
        assert (no_litellm / "went-out").exists() == (policy == "warn")


@pytest.mark.parametrize(
    "text", ["raise ValueError('theirs')", "import nowhere_at_all", "import sys; sys.exit(9)", None]
)
def test_a_sitecustomize_fails_or_lacks_as_it_would_without_us(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "sitecustomize.py").write_text(text)
    program = "import sys\ntry:\n    import sitecustomize\nexcept ImportError:\n    print('none')\nelse:\n    print(sitecustomize.__file__)\n"
    plain = run([sys.executable, "-c", program], tmp_path, environment(tmp_path))
    with_us = hooked(tmp_path, program, tmp_path)
    assert (with_us.returncode, with_us.stderr.splitlines()[:1]) == (plain.returncode, plain.stderr.splitlines()[:1])
    if text is None:
        assert plain.stdout == "none\n" and "startup" in with_us.stdout


def test_a_program_without_litellm_imports_next_to_nothing_more(tmp_path: Path) -> None:
    program = "import sys; print(sorted(sys.modules))"
    plain = run([sys.executable, "-c", program], tmp_path)
    more = set(eval(hooked(tmp_path, program).stdout)) - set(eval(plain.stdout))
    assert more == {"sitecustomize"}
    auto = run([sys.executable, "-c", "import litellm_budget_plugin.auto\n" + program], tmp_path)
    ours = {name for name in set(eval(auto.stdout)) - set(eval(plain.stdout)) if "litellm_budget_plugin" not in name}
    assert ours == {"__future__"}


class TestFinding:
    """The answers of the hook to other code that looks for LiteLLM."""

    @pytest.fixture
    def hook(self, no_litellm: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sitecustomize.ImportHook]:
        hook = sitecustomize.ImportHook()
        monkeypatch.syspath_prepend(str(no_litellm))
        before = {name: sys.modules.pop(name) for name in [*sys.modules] if name.partition(".")[0] == "litellm"}
        monkeypatch.setattr(sys, "meta_path", [hook, PathFinder])
        yield hook
        sys.modules.pop("litellm", None)
        sys.modules.update(before)

    def test_looking_executes_nothing(self, hook: sitecustomize.ImportHook, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sitecustomize.arming(), "arm", lambda: pytest.fail("armed"))
        spec = find_spec("litellm")
        assert spec is not None and spec.loader is not None
        assert spec.loader.get_source("litellm") == NO_LITELLM  # type: ignore[attr-defined]

    def test_a_directory_that_is_called_litellm_is_none(
        self, hook: sitecustomize.ImportHook, no_litellm: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sitecustomize.arming(), "arm", lambda: pytest.fail("armed"))
        (no_litellm / "litellm" / "__init__.py").unlink()
        monkeypatch.setattr(sys, "path", [str(no_litellm)])
        import litellm

        assert litellm.__path__

    @pytest.mark.parametrize("name", ["litellm_other", "litellm.types", "lite"])
    def test_other_modules_are_not_its_own(self, hook: sitecustomize.ImportHook, name: str) -> None:
        assert hook.find_spec(name) is None

    def test_a_lazy_loader_arms_when_the_module_is_used(
        self, hook: sitecustomize.ImportHook, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from importlib.util import LazyLoader, module_from_spec

        armed: list[types.ModuleType] = []
        monkeypatch.setattr(sitecustomize.arming(), "arm", lambda: armed.append(module))
        spec = find_spec("litellm")
        assert spec is not None and spec.loader is not None
        spec.loader = LazyLoader(spec.loader)  # type: ignore[arg-type]
        module = module_from_spec(spec)
        sys.modules["litellm"] = module
        spec.loader.exec_module(module)
        assert not armed
        assert module.completion and armed == [module]
