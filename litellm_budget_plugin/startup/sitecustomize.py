"""Python imports this at its start, because `litellm-budget run` has put this directory in front of PYTHONPATH.

It watches for the import of LiteLLM, so that budgets are armed before anyone can call it. Then it imports the
application's own `sitecustomize`. It is short and imports nothing, because it also runs in programs that never import
LiteLLM and in interpreters that do not have this package. `litellm_budget_plugin.auto` imports it under its full name.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class ImportHook:
    """A finder that finds LiteLLM as the finders after it do, and has its loader arm budgets. `importlib.reload` uses
    it, too.
    """

    arms_litellm_budgets = True

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        """Return what the other finders find for LiteLLM; None for every other module."""
        if name != "litellm":
            return None
        finders = sys.meta_path[:]
        for finder in finders[finders.index(self) + 1 if self in finders else 0 :]:
            find = getattr(finder, "find_spec", None)
            spec: Any = find and find(name, path, target)
            if spec is not None:
                # A directory that happens to be called litellm is not a module.
                if spec.loader is not None:
                    spec.loader = arming().ArmingLoader(spec.loader)
                return spec
        return None


def watch() -> None:
    """Arm budgets when LiteLLM is imported, or now if it already is. Calling it again changes nothing."""
    if not any(getattr(finder, "arms_litellm_budgets", False) for finder in sys.meta_path):
        sys.meta_path.insert(0, ImportHook())
    if "litellm" in sys.modules:
        # Another thread may be importing it, and may need what is imported next. Wait for it first.
        import litellm  # noqa: F401

        arming().arm()


def arming() -> "Any":
    """Return the module beside this one, even if the application has changed the path."""
    name = "litellm_budget_arming"
    if name not in sys.modules:
        from importlib.util import module_from_spec, spec_from_file_location

        spec: Any = spec_from_file_location(name, os.path.join(os.path.dirname(__file__), f"{name}.py"))
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules.setdefault(name, module)
    return sys.modules[name]


def _give_way() -> None:
    """Import the application's module of the same name, without this directory on the path."""
    here = os.path.dirname(__file__)
    position = sys.path.index(here)
    ours = sys.modules.pop(__name__)
    del sys.path[position]
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
    except ImportError as error:
        if error.name != __name__:
            raise
    finally:
        # A program may pass its path on to another Python.
        sys.path.insert(position, here)
        # The import that has loaded this expects a module of its name.
        sys.modules.setdefault(__name__, ours)


if __name__ == "sitecustomize":
    watch()
    _give_way()
