"""The reading of the engines' SQL files."""

from __future__ import annotations

from importlib import resources


def script(package: str, file: str) -> str:
    """The text of an SQL file in `package`."""
    return resources.files(package).joinpath(file).read_text("utf-8")


def named_queries(package: str, file: str) -> dict[str, str]:
    """The queries of an SQL file, by the names in their `-- name:` lines."""
    queries = {}
    for part in script(package, file).split("-- name: ")[1:]:
        name, _, query = part.partition("\n")
        queries[name.strip()] = query.strip()
    return queries
