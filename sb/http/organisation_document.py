"""The document of an organisation: what `sb apply` sends, and what `sb export` writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from sb.http.bodies import Body, MisplacedError, Text
from sb.http.changes import Changes
from sb.http.refs import SecretRef
from sb.http.routes.bindings import Keys, Operations
from sb.http.routes.environments import Kind, RiskLevel
from sb.http.routes.grants import Moment, Reason
from sb.http.routes.policies import Name as PolicyName
from sb.http.routes.policies import Priority, RevealTtl, Selector
from sb.http.routes.requests import ProviderType
from sb.http.routes.roles import Description as RoleDescription
from sb.http.routes.roles import PermissionKeys, RoleName
from sb.http.routes.secrets import ClusterName
from sb.http.routes.teams import Description, Name, Status
from sb.http.routes.workflows import Name as WorkflowName
from sb.http.routes.workflows import WorkflowKnobs
from sb.ops.teams import MOST_LEVELS

#: How much one document may name, members included: all of it is one transaction.
MOST_ENTRIES = 5000


def _path(text: str) -> str:
    parts = text.split("/")
    if len(parts) > MOST_LEVELS or not all(0 < len(part) <= 240 for part in parts):
        msg = "must be names joined by slashes, from the root down"
        raise ValueError(msg)
    for part in parts:
        name = part.replace("~1", "/").replace("~0", "~")
        if name != name.strip() or not name.isprintable() or len(name) > 120:
            msg = "each name must be printable, of 1 to 120 characters, with no spaces around it"
            raise ValueError(msg)
        if "~" in part.replace("~0", "").replace("~1", ""):
            msg = "write ~0 for a tilde in a name and ~1 for a slash"
            raise ValueError(msg)
    return text


def _not_boolean(value: object) -> object:
    if value is True:  # To Python, and so to the literal, it is 1.
        msg = "must be 1"
        raise ValueError(msg)
    return value


Path = Annotated[Text, AfterValidator(_path)]
Email = Annotated[Text, Field(min_length=3, max_length=320)]
Reference = Annotated[Text, Field(min_length=1, max_length=300)]


class RoleItem(Body):
    name: RoleName
    description: RoleDescription = ""
    permissions: PermissionKeys = Field(default=[])


class TeamItem(Body):
    """A team by its path; members are added, never removed."""

    path: Path
    description: Description | None = None
    status: Status = "active"
    members: list[Email] = Field(default=[])


class EnvironmentItem(Body):
    name: Name
    type: Literal["dev", "staging", "uat", "prod", "other"] = "other"
    kind: Kind | None = None
    risk_level: RiskLevel = 1
    description: Description | None = None


class BindingItem(Body):
    """A secret by its provider and path and, where that is not enough, connection and cluster."""

    provider: ProviderType
    secret_ref: SecretRef
    connection: Reference | None = None
    cluster: ClusterName | None = None
    environment: Name | None = None
    allowed_ops: Operations = Field(default=["read"])
    allowed_keys: Keys | None = None


class ProjectItem(Body):
    name: Name
    team: Path | None = None
    status: Status = "active"
    environments: list[EnvironmentItem] = Field(default=[])
    bindings: list[BindingItem] = Field(default=[])

    @model_validator(mode="after")
    def _once(self) -> Self:
        _named_once("environments", [item.name for item in self.environments])
        places = [(b.provider, b.secret_ref, b.connection, b.cluster) for b in self.bindings]
        _named_once("bindings", places)
        return self


class WorkflowItem(WorkflowKnobs):
    """The knobs of a workflow, and the role it asks by its name."""

    nullable: ClassVar[frozenset[str]] = frozenset({"approver_role"})

    name: WorkflowName
    approver_role: RoleName | None = None


class PolicyItem(Changes):
    """A rule by its name and where it stands; `{}` matches everything and is the system's own."""

    nullable: ClassVar[frozenset[str]] = frozenset({"project", "team"})

    name: PolicyName
    project: Name | None = None
    team: Path | None = None
    selector: Selector
    workflow: WorkflowName
    priority: Priority | None = None
    enabled: bool | None = None
    direct_reveal_allowed: bool | None = None
    requires_mfa: bool | None = None
    reveal_ttl_seconds: RevealTtl | None = None


class ScopeItem(Body):
    """Where a grant holds; nothing is everywhere and must be written as `{}`."""

    team: Path | None = None
    project: Name | None = None
    environment_path: Path | None = None
    secret_ref_prefix: SecretRef | None = None
    provider: ProviderType | None = None
    cluster: ClusterName | None = None

    @model_validator(mode="after")
    def _said(self) -> Self:
        # A null would be read as no condition at all: everywhere.
        if any(getattr(self, name) is None for name in self.model_fields_set):
            msg = "leave out what is not meant"
            raise ValueError(msg)
        return self


class GrantItem(Body):
    person: Email
    role: RoleName
    scope: ScopeItem
    expires_at: Moment | None = None
    reason: Reason | None = None


class OrganisationDocument(Body):
    """What is left out stays as it is, whole sections and single fields alike."""

    version: Annotated[Literal[1], BeforeValidator(_not_boolean)]
    roles: list[RoleItem] = Field(default=[])
    teams: list[TeamItem] = Field(default=[])
    projects: list[ProjectItem] = Field(default=[])
    workflows: list[WorkflowItem] = Field(default=[])
    policies: list[PolicyItem] = Field(default=[])
    grants: list[GrantItem] = Field(default=[])

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        named: list[Sequence[Any]] = [self.roles, self.teams, self.projects]
        named += [self.workflows, self.policies, self.grants]
        named += [team.members for team in self.teams]
        named += [inner for one in self.projects for inner in (one.environments, one.bindings)]
        entries = sum(len(section) for section in named)
        if entries > MOST_ENTRIES:
            msg = f"at most {MOST_ENTRIES} entries go into one document and here are {entries}"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _once(self) -> Self:
        _named_once("roles", [item.name for item in self.roles])
        _named_once("teams", [item.path for item in self.teams])
        _named_once("projects", [item.name for item in self.projects])
        _named_once("workflows", [item.name for item in self.workflows])
        _named_once("policies", [(item.project, item.team, item.name) for item in self.policies])
        grants = [(g.person.lower(), g.role, *g.scope.model_dump().values()) for g in self.grants]
        _named_once("grants", grants)
        if sum(bool(item.is_default) for item in self.workflows) > 1:
            raise MisplacedError(("workflows",), "there is one default workflow, not two")
        return self

    @property
    def given(self) -> dict[str, Any]:
        """What the document says, without what it leaves out."""
        return self.model_dump(exclude_unset=True)


def _named_once(section: str, names: Sequence[Any]) -> None:
    seen = set[Any]()
    for index, name in enumerate(names):
        if name in seen:
            raise MisplacedError((section, index), "names again what is named before it")
        seen.add(name)
