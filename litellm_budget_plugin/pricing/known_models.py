"""The models that LiteLLM knows, and the model that a misspelt name may mean. A limit for a misspelt name limits
nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import lru_cache

from litellm_budget_plugin.core.models import covers

_CUTOFF = 0.7


def unknown_models(models: Iterable[str]) -> list[str]:
    """Return a sentence for each model of a limit that covers none of the models that LiteLLM has a price for. It
    contains the nearest name if there is one. `models` are written as behind "for" in a limit. An unknown name may
    still be intended, such as a Router's group.
    """
    wanted = list(models)
    if not wanted:
        return []
    names = _known_names()
    return [
        f"LiteLLM knows no model {model!r}{_nearest(model, names)}"
        for model in wanted
        if not any(covers.__wrapped__(model, name) for name in names)
    ]


_LONGEST = 100
"""Longer names are not compared: comparing takes longer the longer the name is, and anyone may send one."""


@lru_cache(maxsize=256)
def nearest_model(model: str) -> str:
    """Return the name most similar to `model` that LiteLLM has a price for; empty if none is similar, or if it is
    `model` itself.
    """
    if len(model) > _LONGEST:
        return ""
    names = {name: None for name in _known_names() if not name.endswith("/*")}
    near = difflib.get_close_matches(model, names, 1, _CUTOFF)
    return near[0] if near and near[0] != model else ""


def _known_names() -> dict[str, None]:
    import litellm

    names: dict[str, None] = {}
    for key, entry in list(litellm.model_cost.items()):
        provider = entry.get("litellm_provider") if isinstance(entry, dict) else None
        bare = key.rpartition("/")[2]
        names.update(dict.fromkeys((key, bare, *((f"{provider}/{bare}", f"{provider}/*") if provider else ()))))
    return names


def _nearest(model: str, names: dict[str, None]) -> str:
    near = difflib.get_close_matches(model, names, 1, _CUTOFF)
    return f"; did you mean {near[0]!r}?" if near else ""
