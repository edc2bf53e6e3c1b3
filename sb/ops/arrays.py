"""Lists of texts as Postgres writes arrays: constants, which are read once and planned with.

SQLite makes JSON of them. The two write quotes and backslashes alike, control characters not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

_PLACES: Final = ("team_ids", "project_id", "environment_id")
#: In more teams than these there is much, the newest of which is soon found one by one.
MAX_LISTED_TEAMS: Final = 50


def array(texts: Iterable[str]) -> str:
    """Return the texts as one; none of them may hold a control character: see `fits`."""
    return "{" + json.dumps(sorted(texts), ensure_ascii=False)[1:-1] + "}"


def fits(texts: Iterable[str]) -> bool:
    """Tell whether arrays and JSON write all of these alike."""
    return all(character >= " " for text in texts for character in text)


def places(scopes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the places the scopes are for, and whether one of them is for none or all for many."""
    teams = {team for scope in scopes for team in scope.get("team_ids", ())}
    named = {
        key: {scope[key] for scope in scopes if key in scope}
        for key in ("project_id", "environment_id")
    }
    anywhere = any(not scope.keys() & {"team_ids", *named} for scope in scopes)
    return {
        "anywhere": anywhere or len(teams) > MAX_LISTED_TEAMS,
        "team_ids": array(teams),
        "project_ids": array(named["project_id"]),
        "environment_ids": array(named["environment_id"]),
    }


def leading(scopes: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what the scopes say of places; one that says nothing of any leads into no project."""
    return [
        {key: scope[key] for key in _PLACES if key in scope}
        for scope in scopes
        if not scope.keys().isdisjoint(_PLACES)
    ]


def whole(scopes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the places that are covered whole as lists, and the scopes that say more, once each.

    A row is found in a list at once, however long; scopes are compared with it one by one.
    """
    named: dict[str, set[str]] = {key: set() for key in _PLACES}
    others = []
    for scope in scopes:
        if len(scope) == 1 and "team_ids" in scope:
            named["team_ids"].update(scope["team_ids"])
        elif len(scope) == 1 and (key := next(iter(scope))) in named:
            named[key].add(scope[key])
        elif scope not in others:
            others.append(scope)
    return {
        "whole_teams": array(named["team_ids"]),
        "whole_projects": array(named["project_id"]),
        "whole_environments": array(named["environment_id"]),
        "narrow": bool(others),
        "scopes": others,
    }
