"""The permission catalogue and the roles every installation starts with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    key: str
    group: str
    description: str


def _permission(key: str, group: str, description: str) -> Permission:
    return Permission(key=key, group=group, description=description)


CATALOGUE: tuple[Permission, ...] = (
    _permission("role.edit", "RBAC", "Create, change and delete roles, the seeded ones included."),
    _permission("user_role.edit", "RBAC", "Grant roles to people and take them back."),
    _permission("team.edit", "Tenancy", "Administer teams, their members and their projects."),
    _permission("project.edit", "Tenancy", "Create, archive and restore projects."),
    _permission("environment.edit", "Tenancy", "Create, change and delete environments."),
    _permission("secret.bind", "Tenancy", "Bind secrets to projects and say what may be done."),
    _permission("workflow.edit", "Workflows", "Create, change and delete approval workflows."),
    _permission("policy.edit", "Workflows", "Administer every policy rule and platform setting."),
    _permission("policy.author", "Workflows", "Write non-production rules for covered projects."),
    _permission("agent.mint", "Agents", "Issue enrolment tokens and mint agents."),
    _permission("agent.revoke", "Agents", "Revoke agents."),
    _permission("agent.list", "Agents", "List agents."),
    _permission("job.create", "Agents", "Enqueue jobs by hand."),
    _permission("secret.request", "Secrets", "Submit read and patch requests."),
    _permission("secret.approve", "Secrets", "Approve and reject requests."),
    _permission("secret.reveal.direct", "Secrets", "Reveal without approval where a rule allows."),
    _permission("secret.value.provide", "Secrets", "Fill or refuse cross-team requests."),
    _permission("secret.security.approve", "Secrets", "Cast the security vote."),
    _permission("secret.list", "Observability", "List discovered secrets, never their values."),
    _permission("audit.read", "Observability", "Read the audit log."),
    _permission("integration.edit", "Integrations", "Administer provider connections."),
    _permission("integration.bind", "Integrations", "Bind self-service connections to projects."),
)

PERMISSION_KEYS = frozenset(permission.key for permission in CATALOGUE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedRole:
    name: str
    description: str
    permissions: tuple[str, ...]


SEED_ROLES: tuple[SeedRole, ...] = (
    SeedRole(
        name="admin",
        description="Runs the installation. Holds no permission to see a value without approval.",
        permissions=(
            "role.edit",
            "user_role.edit",
            "team.edit",
            "project.edit",
            "environment.edit",
            "secret.bind",
            "workflow.edit",
            "policy.edit",
            "integration.edit",
            "agent.mint",
            "agent.revoke",
            "agent.list",
            "job.create",
            "secret.list",
            "secret.request",
            "secret.approve",
            "audit.read",
        ),
    ),
    SeedRole(
        name="approver",
        description="Decides on other people's requests.",
        permissions=("secret.list", "secret.approve", "audit.read"),
    ),
    SeedRole(
        name="developer",
        description="Asks to read and change secrets.",
        permissions=("secret.list", "secret.request", "secret.reveal.direct", "audit.read"),
    ),
    SeedRole(
        name="value_provider",
        description="Provides values another team asked for.",
        permissions=("secret.value.provide",),
    ),
    SeedRole(
        name="security_approver",
        description="Casts the security vote on cross-team requests.",
        permissions=("secret.security.approve",),
    ),
    SeedRole(
        name="provider_connection_binder",
        description="Binds self-service provider connections to projects.",
        permissions=("integration.bind",),
    ),
    SeedRole(
        name="policy_author",
        description="Writes policy rules for covered projects and teams.",
        permissions=("policy.author",),
    ),
)
