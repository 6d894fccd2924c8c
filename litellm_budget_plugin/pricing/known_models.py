"""Which models of limits nobody can call: a name that is misspelt limits nothing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from litellm_budget_plugin.core.models import covers


def unknown_models(models: Iterable[str]) -> list[str]:
    """A sentence for each model of a limit, as written behind "for", that covers none of the models that LiteLLM has a price for, with the
    nearest name if there is one. Other names may be meant all the same, such as a Router's groups.
    """
    wanted = list(models)
    if not wanted:
        return []
    import litellm

    names: dict[str, None] = {}
    for key, entry in list(litellm.model_cost.items()):
        provider = entry.get("litellm_provider") if isinstance(entry, dict) else None
        bare = key.rpartition("/")[2]
        names.update(dict.fromkeys((key, bare, *((f"{provider}/{bare}", f"{provider}/*") if provider else ()))))
    return [
        f"LiteLLM knows no model {model!r}{_nearest(model, names)}"
        for model in wanted
        if not any(covers.__wrapped__(model, name) for name in names)
    ]


def _nearest(model: str, names: dict[str, None]) -> str:
    near = difflib.get_close_matches(model, names, 1, 0.7)
    return f"; did you mean {near[0]!r}?" if near else ""
