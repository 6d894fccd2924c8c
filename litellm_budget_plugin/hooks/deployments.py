"""The deployments that a request to the LiteLLM proxy may reach. The request names a group, and the proxy's Router
chooses later.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from litellm_budget_plugin.hooks.proxy_identity import caller_of
from litellm_budget_plugin.pricing import Request

# A deployment of this provider only chooses another group.
_CHOOSER = "auto_router/"


def names_group(request: Request) -> bool:
    """Return whether the request came through the proxy and its deployment has not been chosen yet."""
    return caller_of(request.params) is not None and not _model_info(request.params)


def candidates(request: Request) -> tuple[Request, ...]:
    """Return the request as each deployment of its group would get it; empty if the group is unknown before it is
    called.
    """
    router = getattr(sys.modules.get("litellm.proxy.proxy_server"), "llm_router", None)
    if router is None:
        return (request,)
    team = getattr(caller_of(request.params), "team_id", None)
    names = (
        [name.strip() for name in request.model.split(",")] if request.call_type == "completion" else [request.model]
    )
    rows = [row for name in names for row in _rows(router, name, team)]
    if any(str(_litellm_params(row).get("model")).startswith(_CHOOSER) for row in rows):
        return ()
    return tuple(_as_sent(request, row) for row in rows)


def _rows(router: Any, name: str, team: str | None) -> list[Mapping[str, Any]]:
    """Return the Router's deployments for a name: a group, an alias, a wildcard, a deployment's id, or its model."""
    found = router.get_model_list(model_name=name, team_id=team)
    if found:
        return list(found)
    by_id = router.get_deployment(model_id=name)
    if by_id is not None:
        return [by_id.model_dump(exclude_none=True)]
    return [row for row in router.model_list if _litellm_params(row).get("model") == name]


def _litellm_params(row: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = row["litellm_params"]
    return found


def _as_sent(request: Request, row: Mapping[str, Any]) -> Request:
    own = {name: value for name, value in dict(_litellm_params(row)).items() if value is not None}
    provider = own.get("custom_llm_provider") or request.provider
    # As the Router does: the caller's parameters override the deployment's.
    params = {**own, **request.params, "model": own["model"], "model_info": row.get("model_info") or {}}
    return Request(request.call_type, str(own["model"]), provider, params)


def chosen(request: Request, details: Mapping[str, Any]) -> Request:
    """Return the request of an attempt with the prices of the deployment that LiteLLM's Logging object names."""
    info = _model_info(details.get("litellm_params") or {})
    return replace(request, params={**request.params, "model_info": info}) if info else request


def _model_info(params: Mapping[str, Any]) -> Mapping[str, Any]:
    for source in (params, params.get("metadata"), params.get("litellm_metadata")):
        info = source.get("model_info") if isinstance(source, Mapping) else None
        if isinstance(info, Mapping) and info.get("id"):
            return info
    return {}
