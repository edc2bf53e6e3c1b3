"""What all walks of the governance machine share: secrets, rules, roles; and how a walk begins."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sb.auth.permissions import SEED_ROLES
from sb.db.engine import Transaction
from sb.ids import new_id
from sb.ops import bootstrap
from tests.ops import rows
from tests.ops.governance_model import Flow, Grant, Model, Person, Role, Secret
from tests.ops.world import NOW, World

LIFE = timedelta(days=14)
FLOWS = {
    "app/": Flow(),
    "pay/card": Flow(quorum=2, role="approver"),
    "pay/own": Flow(quorum=2, own_vote=True),
}
#: Where they are, what they are called; the first two only differ in their cluster. Of the last one
#: only its connection says where it is.
SECRETS = (
    ("file", "app/db", "east", True),
    ("file", "app/db", "west", True),
    ("vault", "pay/card", "west", True),
    ("vault", "pay/own", "east", False),
)
#: Beside the seeded ones: who looks after teams, who gives powers, who only looks, and nobody.
ROLES = {
    "admin": (),
    "approver": (),
    "developer": (),
    "policy_author": (),
    "lead": ("team.edit", "project.edit", "environment.edit", "secret.bind"),
    "giver": ("user_role.edit", "secret.approve", "secret.request"),
    "keeper": ("role.edit", "secret.list"),
    "looker": ("secret.list",),
    "bare": (),
}
#: What roles are given and lose on the way.
MOVED = (
    "secret.approve",
    "secret.request",
    "secret.list",
    "user_role.edit",
    "role.edit",
    "team.edit",
    "project.edit",
    "environment.edit",
    "secret.bind",
)
TABLES = (
    "approvals",
    "secret_wraps",
    "sync_jobs",
    "access_requests",
    "project_secrets",
    "environments",
    "projects",
    "team_members",
    "teams",
    "user_roles",
    "sessions",
    "local_users",
)


@dataclass
class Stage:
    world: World
    secrets: list[Secret]
    roles: dict[str, tuple[str, ...]]
    #: After everything before, so that a walk's time never goes back.
    starts_at: datetime = NOW + timedelta(days=1)
    met: Counter[tuple[str, str]] = field(default_factory=Counter)

    @classmethod
    def build(cls, world: World) -> Stage:
        for prefix, flow in FLOWS.items():
            role_id = world.role(flow.role) if flow.role else None
            world.rule(
                {"secret_ref_prefix": prefix},
                min_approvers=flow.quorum,
                allow_self_approval=flow.own_vote,
                approver_role_id=role_id,
                request_ttl_seconds=int(LIFE.total_seconds()),
            )
        roles = {role.name: role.permissions for role in SEED_ROLES} | {
            name: permissions for name, permissions in ROLES.items() if permissions
        }
        return cls(
            world=world,
            secrets=[_secret(world, *values) for values in SECRETS],
            roles={name: roles.get(name, ()) for name in ROLES},
        )

    def begin(self) -> Model:
        """Leave no row of the last walk, every role as it was, and one administrator."""
        roles = self.world.run(_put_back, roles=self.roles)
        model = Model(now=self.starts_at, secrets=self.secrets, roles=roles)
        root_id = self.world.run(
            bootstrap.create_first_admin, email="root@example.com", password_hash="x", now=model.now
        )
        root = Person(id=root_id, name="root")
        (row,) = self.world.rows("SELECT id FROM user_roles")
        model.people.append(root)
        model.grants.append(Grant(id=row["id"], who=root, role=roles[0], scope={}, ends=None))
        return model


def _secret(world: World, provider: str, ref: str, cluster: str, says_where: bool) -> Secret:
    connection, secret_id = world.connection(provider, cluster), new_id()
    world.insert(
        "secrets",
        id=secret_id,
        cluster_name=cluster if says_where else "",
        provider_type=provider,
        secret_ref=ref,
        provider_connection_id=connection,
        labels={},
        status="present",
        first_seen_at=NOW,
        last_seen_at=NOW,
    )
    (flow,) = (flow for prefix, flow in FLOWS.items() if ref.startswith(prefix))
    return Secret(
        id=secret_id, ref=ref, provider=provider, cluster=cluster, connection=connection, flow=flow
    )


def _put_back(tx: Transaction, *, roles: dict[str, tuple[str, ...]]) -> list[Role]:
    rows.run(tx, "UPDATE teams SET parent_team_id = NULL")
    for table in TABLES:
        rows.run(tx, f"DELETE FROM {table}")
    rows.run(tx, "UPDATE secrets SET became_prod_at = NULL")
    return [_role(tx, name, permissions) for name, permissions in roles.items()]


def _role(tx: Transaction, name: str, permissions: tuple[str, ...]) -> Role:
    found = tx.one("role_find_by_name", name=name)
    role_id = new_id() if found is None else str(found["id"])
    facts = {"id": role_id, "name": name, "description": "", "permissions": list(permissions)}
    if found is None:
        tx.count("role_insert", **facts, is_system=False, now=NOW)
    else:
        tx.count("role_update", **facts, now=NOW)
    return Role(id=role_id, name=name, permissions=frozenset(permissions))
