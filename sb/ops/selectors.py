"""Selectors of policy rules as they are written: known keys, values that can match, safe pins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from sb.db.engine import Transaction
from sb.errors import InvalidInputError
from sb.ids import is_id
from sb.ops.governance_errors import (
    PolicyEnvironmentError,
    PolicyScopeTooBroadError,
    PolicySelectorMismatchError,
    ProdPolicyNotAllowedError,
)
from sb.ops.targets import LONG_REF, PATH_PROVIDERS, ROUTING_KEYS, fits_ref

#: The values of keys that take one of a few, with the reason that refuses any other.
ENUMS: Mapping[str, tuple[frozenset[str], str]] = {
    "provider_type": (frozenset(ROUTING_KEYS), "provider_type_invalid"),
    "operation": (frozenset({"read", "patch", "reveal"}), "operation_invalid"),
    "environment_kind": (frozenset({"non_prod", "prod"}), "env_kind_invalid"),
}


def fits_name(text: str) -> bool:
    """Tell whether the text can be the name of an environment."""
    return 0 < len(text) <= 255


#: Which text each key takes that takes free text, and what is said of any other.
TEXTS: Final[Mapping[str, tuple[Callable[[str], bool], str]]] = {
    "environment": (fits_name, "must be text of 1 to 255 characters"),
    "secret_ref_prefix": (fits_ref, LONG_REF),
}
#: What is said of an anchored rule for all of production.
BY_PLATFORM: Final = (
    "Rules of a project or a team govern non_prod by kind. For production leave the anchor out and "
    "put the project into the selector."
)
#: What a team's rule leaves to the requests of its projects.
UNPINNED_IN_TEAMS = ("project_id", "environment_id", "team_id")


def pins_non_prod(selector: Mapping[str, Any]) -> bool:
    """Tell whether the selector can never match a request to a production environment."""
    return selector.get("environment_kind") == "non_prod"


def for_platform(tx: Transaction, selector: Mapping[str, Any]) -> dict[str, str]:
    """Return the selector of a rule without an anchor in its stored form, or refuse it."""
    if not selector:
        too_broad("selector_empty")
    found = _checked_values(selector)
    project_id = found.get("project_id")
    if project_id is not None and tx.one("project_find", id=project_id) is None:
        raise _invalid("project_id", "no such project")
    _check_environment(tx, found, project_id=project_id)
    return found


def for_project(tx: Transaction, selector: Mapping[str, Any], *, project_id: str) -> dict[str, str]:
    """Return the selector an administrator gives to a project's rule, or refuse it."""
    found = _of_project(selector, project_id=project_id)
    if found.get("environment_kind") == "prod" and "environment_id" not in found:
        too_broad("env_kind_invalid", BY_PLATFORM)
    _check_environment(tx, found, project_id=project_id)
    return found


def for_scoped_project(
    tx: Transaction, selector: Mapping[str, Any], *, project_id: str
) -> dict[str, str]:
    """Return the selector a scoped author gives to a project's rule: never for production."""
    found = _of_project(selector, project_id=project_id)
    if found.get("environment_kind") == "prod":
        raise ProdPolicyNotAllowedError(env_kind="prod")
    if _check_environment(tx, found, project_id=project_id, prod=False) == "prod":
        raise ProdPolicyNotAllowedError(env_kind="prod")
    return found


def for_team(selector: Mapping[str, Any], *, scoped: bool) -> dict[str, str]:
    """Return the selector of a team's rule in its stored form: non-production, no ids pinned."""
    if not selector:
        too_broad("selector_empty")
    for key in UNPINNED_IN_TEAMS:
        if key in selector:
            too_broad(f"team_selector_pins_{key}")
    found = _checked_values(selector)
    kind = found.get("environment_kind")
    if kind is None:
        too_broad("env_constraint_missing")
    if kind == "prod":
        if scoped:
            raise ProdPolicyNotAllowedError(env_kind="prod")
        too_broad("env_kind_invalid", BY_PLATFORM)
    return found


def too_broad(reason: str, message: str | None = None) -> NoReturn:
    raise PolicyScopeTooBroadError(message, reason=reason)


def _of_project(selector: Mapping[str, Any], *, project_id: str) -> dict[str, str]:
    pinned = selector.get("project_id", project_id)
    if not isinstance(pinned, str) or pinned.lower() != project_id:
        raise PolicySelectorMismatchError(field="selector.project_id")
    found = _checked_values(selector)
    if not found:
        too_broad("selector_empty")
    if "environment_kind" not in found and "environment_id" not in found:
        too_broad("env_constraint_missing")
    return found


def _checked_values(selector: Mapping[str, Any]) -> dict[str, str]:
    """Return the selector with ids in canonical form, or refuse what could never match."""
    found = {key: _checked_value(key, selector[key]) for key in sorted(selector)}
    *whole, _ = found.get("secret_ref_prefix", "").split("/")
    # Submits refuse paths with two spellings; elsewhere a name may hold anything.
    if found.get("provider_type") in PATH_PROVIDERS and {"", ".", ".."}.intersection(whole):
        raise _invalid("secret_ref_prefix", "no path of this provider begins like that")
    return found


def _checked_value(key: str, value: object) -> str:
    text = value if isinstance(value, str) else ""
    if key in ENUMS:
        known, reason = ENUMS[key]
        if text not in known:
            too_broad(reason)
        return text
    match key:
        case "environment_id":
            if not is_id(text.lower()):
                raise PolicyEnvironmentError(field="selector.environment_id")
            return text.lower()
        case "project_id":
            if not is_id(text.lower()):
                raise _invalid(key, "not an id")
            return text.lower()
        case "environment" | "secret_ref_prefix":
            fits, reason = TEXTS[key]
            if not fits(text):
                raise _invalid(key, reason)
            return text
    raise _invalid(key, "there is no such selector key")


def _check_environment(
    tx: Transaction, selector: Mapping[str, str], *, project_id: str | None, prod: bool = True
) -> str | None:
    """Return the kind of the environment the selector pins by id, if it does."""
    environment_id = selector.get("environment_id")
    if environment_id is None:
        return None
    row = tx.one("environment_find", id=environment_id)
    if row is None or project_id not in (None, row["project_id"]):
        raise PolicyEnvironmentError(field="selector.environment_id")
    kind = str(row["kind"])
    # For a scoped author production is refused as such, whatever the selector says of its kind.
    if (prod or kind != "prod") and selector.get("environment_kind", kind) != kind:
        too_broad("env_kind_id_inconsistent")
    return kind


def _invalid(key: str, reason: str) -> InvalidInputError:
    return InvalidInputError(fields=[{"field": f"selector.{key}"[:300], "reason": reason}])
