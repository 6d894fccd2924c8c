"""The proxy's authentication in these tests, copied beside its config. There is no database: a key contains its owner."""

from __future__ import annotations

from litellm.proxy._types import UserAPIKeyAuth


async def user_api_key_auth(request: object, api_key: str) -> UserAPIKeyAuth:
    """`sk-user-NAME` is a user's key, `sk-team-TEAM-NAME` a team member's, `sk-key-ALIAS` a key without a user.
    `plain-…` is a key in a form that LiteLLM does not hash, and `sk-nobody` is one without an owner.
    `sk-tagged-TEAM-NAME` has tags, and so has its team.
    """
    kind, _, name = api_key.removeprefix("sk-").partition("-")
    if kind == "user":
        return UserAPIKeyAuth(api_key=api_key, user_id=name)
    if kind == "team":
        team, _, name = name.partition("-")
        return UserAPIKeyAuth(api_key=api_key, user_id=name, team_id=team)
    if kind == "tagged":
        team, _, name = name.partition("-")
        tags = {"metadata": {"tags": ["of-key", "of-both"]}, "team_metadata": {"tags": ["of-team", "of-both"]}}
        return UserAPIKeyAuth(api_key=api_key, user_id=name, team_id=team, **tags)
    if kind == "key":
        return UserAPIKeyAuth(api_key=api_key, key_alias=name)
    if kind == "plain":
        return UserAPIKeyAuth(api_key=api_key)
    if kind == "nobody":
        return UserAPIKeyAuth()
    raise ValueError("no such key")
