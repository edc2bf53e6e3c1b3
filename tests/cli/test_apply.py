"""`sb apply` and `sb export` against a running dev mode: plan, apply, again, and refusals."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from sb.cli.organisation import read
from sb.http.organisation_document import OrganisationDocument
from tests.cli import running
from tests.cli.running import Dev
from tests.guards.source import ROOT

pytestmark = pytest.mark.xdist_group("cli-dev")

Done = subprocess.CompletedProcess[str]
FILE = """\
version: 1
teams:
  - path: research
    members: [developer@example.com]
  - path: research/lab
projects:
  - name: lab-data
    team: research/lab
    environments:
      - {name: dev, type: dev}
workflows:
  - {name: lab-pair, min_approvers: 2}
policies:
  - name: two in the lab
    project: lab-data
    selector: {environment_kind: non_prod}
    workflow: lab-pair
grants:
  - person: developer@example.com
    role: developer
    scope: {project: lab-data}
    expires_at: 2099-01-01T00:00:00Z
"""


def run(dev: Dev, *words: str, role: str = "admin") -> Done:
    settings = {"SB_URL": dev.url, "SB_PASSWORD": dev.passwords[role]}
    return running.sb(*words, "--as", f"{role}@example.com", home=dev.home, environ=settings)


def says(dev: Dev, *words: str) -> str:
    done = run(dev, *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "org.yaml"
    path.write_text(text)
    return str(path)


def exported(dev: Dev) -> Any:
    return yaml.safe_load(says(dev, "export"))


def test_the_demo_organisation_is_what_its_file_says(dev: Dev) -> None:
    path = ROOT / "sb" / "cli" / "demo_org.yaml"
    said = says(dev, "apply", "-f", str(path), "--plan", "--exit-code")
    assert said == "0 to create, 0 to update, = 9 unchanged\n"
    found = exported(dev)
    project = next(one for one in found["projects"] if one["name"] == "billing")
    assert [env["kind"] for env in project["environments"]] == ["non_prod", "prod"]
    assert project["bindings"][0]["secret_ref"] == "apps/billing/db"
    assert read(path.read_text())["version"] == found["version"]


def test_the_example_of_the_documents_can_be_read() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    (example,) = re.findall(r"^```yaml\n(version: 1\n.*?)^```", text, re.MULTILINE | re.DOTALL)
    found = OrganisationDocument.model_validate(read(example), strict=True)
    assert all(getattr(found, section) for section in OrganisationDocument.model_fields)


def test_apply_shows_the_plan_then_does_it_once(dev: Dev, tmp_path: Path) -> None:
    path, before = written(tmp_path, FILE), exported(dev)
    planned = run(dev, "apply", "-f", path, "--plan", "--exit-code")
    assert (planned.returncode, planned.stderr) == (2, "")
    assert "+ create team research/lab\n" in planned.stdout
    assert "+ create policy two in the lab (lab-data)\n" in planned.stdout
    assert planned.stdout.endswith("7 to create, 0 to update, = 0 unchanged\n")
    assert run(dev, "apply", "-f", path, "--plan").returncode == 0
    assert exported(dev) == before
    assert says(dev, "apply", "-f", path) == planned.stdout + "Applied.\n"
    assert says(dev, "apply", "-f", path) == "0 to create, 0 to update, = 7 unchanged\n"
    assert exported(dev) != before

    changed = written(tmp_path, FILE.replace("min_approvers: 2", "min_approvers: 3"))
    answer = json.loads(says(dev, "apply", "-f", changed, "--json"))
    assert (answer["applied"], answer["updated"]) == (True, 1)
    assert [step for step in answer["steps"] if step["changes"]] == [
        {
            "kind": "workflow",
            "name": "lab-pair",
            "action": "update",
            "changes": [{"field": "min_approvers", "before": 2, "after": 3}],
        }
    ]


def test_export_that_could_not_be_applied_is_no_file(dev: Dev, tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    with dev.person("admin") as admin:
        workflow_id = admin.get("/workflows").json()[0]["id"]
        selector = {"operation": "read"}
        body = {"name": "twin", "selector": selector, "workflow_id": workflow_id, "enabled": False}
        twins = [admin.post("/policies", json=body).json()["id"] for _ in range(2)]
        done = run(dev, "export", "-o", str(path))
        for rule_id in twins:
            assert admin.delete(f"/policies/{rule_id}").status_code == 204
    assert (done.returncode, done.stdout, path.exists()) == (1, "", False)
    assert done.stderr.startswith("export_ambiguous: ")
    assert done.stderr.endswith("\n  rules: name='twin' rules=2\n")


def test_export_can_be_applied_and_changes_nothing(dev: Dev, tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    assert says(dev, "export", "-o", str(path)) == ""
    assert "0 to create, 0 to update" in says(dev, "apply", "-f", str(path))
    assert json.loads(says(dev, "export", "--json")) == yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 2\n", "version: "),
        ("version: 1\nteems: []\n", "\n  teems: there is no such field; did you mean teams?\n"),
        ("version: 1\ncoffee: []\n", "\n  coffee: there is no such field\n"),
        ("version: 1\nprojects: [{name: q, enviroments: []}]\n",
         '\n  projects[0].enviroments "q": there is no such field; did you mean environments?\n'),
        ("version: 1\nprojects: [{name: q, environments: [{name: e, risklevel: 1}]}]\n",
         'environments[0].risklevel "q/e": there is no such field; did you mean risk_level?\n'),
        ("version: 1\ngrants: [{person: a@b.c, role: r, scope: {teem: x}}]\n",
         'grants[0].scope.teem "a@b.c": there is no such field; did you mean team?\n'),
        ("version: 1\nversion: 1\n", "given twice"),
        ("version: [1\n", "cannot be read"),
        ("- version\n", "must be a JSON object"),
        ("version: 1\nteams: [{path: a}, {path: b, status: gone}]\n", '\n  teams[1].status "b": '),
        ("version: 1\nprojects: [{name: q, environments: [{name: e, kind: test}]}]\n",
         'projects[0].environments[0].kind "q/e": '),
        ("version: 1\ngrants: [{person: eve@example.com, role: admin, scope: {}}]\n",
         "grants[0].person \"eve@example.com\": nobody has an account with the address 'eve@"),
        ("version: 1\nprojects: [{name: q, team: none}]\n",
         'projects[0].team "q": there is no team'),
        ("version: 1\nroles: [{name: r, permissions: [secret.steal]}]\n", 'roles[0] "r"'),
        ("version: 1\ngrants: [{person: admin@example.com, role: security_approver, scope: {}}]\n",
         "permission_escalation"),
    ],
)  # fmt: skip
def test_apply_of_a_bad_file_says_where_and_why(
    dev: Dev, tmp_path: Path, text: str, said: str
) -> None:
    done = run(dev, "apply", "-f", written(tmp_path, text))
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr


def test_apply_tells_every_detail_of_a_refusal(dev: Dev, tmp_path: Path) -> None:
    role = "version: 1\nroles: [{name: r, permissions: [secret.steal, secret.sell]}]\n"
    done = run(dev, "apply", "-f", written(tmp_path, role))
    assert "\n  unknown: secret.sell, secret.steal\n" in done.stderr
    assert "\n  field: permissions\n" in done.stderr
    assert done.stderr.endswith('\n  roles[0] "r"\n')
    grant = "{person: admin@example.com, role: security_approver, scope: {}}"
    done = run(dev, "apply", "-f", written(tmp_path, f"version: 1\ngrants: [{grant}]\n"))
    assert "\n  permissions: " in done.stderr


def test_apply_tells_all_unknown_names_with_their_places(dev: Dev, tmp_path: Path) -> None:
    text = (
        "version: 1\n"
        "projects: [{name: q, team: none}]\n"
        "grants: [{person: eve@example.com, role: king, scope: {project: q}}]\n"
    )
    done = run(dev, "apply", "-f", written(tmp_path, text))
    assert (done.returncode, done.stdout) == (1, "")
    first, *rest = done.stderr.splitlines()
    assert first.startswith("invalid_request: ")
    assert rest == [
        "  projects[0].team \"q\": there is no team 'none'",
        '  grants[0].person "eve@example.com": '
        "nobody has an account with the address 'eve@example.com'",
        "  grants[0].role \"eve@example.com\": there is no role 'king'",
    ]


def test_apply_says_the_place_before_a_reason_in_our_words(dev: Dev, tmp_path: Path) -> None:
    text = "version: 1\nteams: [{path: a}, {path: a}]\n"
    done = run(dev, "apply", "-f", written(tmp_path, text))
    assert done.stderr.splitlines()[1:] == ['  teams[1] "a": names again what is named before it']


@pytest.mark.parametrize("text", ["", "# nothing yet\n"])
def test_apply_of_an_empty_file_says_so(dev: Dev, tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    done = run(dev, "apply", "-f", path)
    told = f"{path} cannot be applied: the file is empty\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", told)


def test_plan_shows_the_fields_of_what_it_creates(dev: Dev, tmp_path: Path) -> None:
    text = (
        "version: 1\n"
        "roles: [{name: planned, permissions: [team.edit, secret.bind]}]\n"
        "teams: [{path: planned, members: [developer@example.com]}]\n"
        "projects: [{name: planned, environments: [{name: p, type: prod}],\n"
        "            bindings: [{provider: file, secret_ref: planned, connection: dev-file}]}]\n"
        "policies: [{name: planned, selector: {operation: read}, workflow: standard,\n"
        "            priority: 7}]\n"
        "grants: [{person: developer@example.com, role: planned, scope: {team: planned},\n"
        "          expires_at: 2099-01-01T00:00:00Z, reason: Für Käthe}]\n"
    )
    path = written(tmp_path, text)
    said = says(dev, "apply", "-f", path, "--plan")
    for step, lines in {
        "role planned": ('description: ""', 'permissions: ["team.edit", "secret.bind"]'),
        "team planned": ('status: "active"', 'members: "+ developer@example.com"'),
        "environment planned/p": ('type: "prod"', 'kind: "prod"', "risk_level: 1"),
        "binding planned file:planned (dev-file)": ('connection: "dev-file"',),
        "policy planned": ('selector: {"operation": "read"}', "priority: 7", "enabled: true"),
        "grant planned to developer@example.com at team=planned": (
            'expires_at: "2099-01-01T00:00:00Z"',
            'reason: "Für Käthe"',
        ),
    }.items():
        told = "".join(f"    {line}\n" for line in lines)
        assert f"+ create {step}\n{told}" in said
    assert '    workflow: "standard"\n' in said
    answer = json.loads(says(dev, "apply", "-f", path, "--plan", "--json"))
    (grant,) = [step for step in answer["steps"] if step["kind"] == "grant"]
    assert grant["changes"][1] == {"field": "reason", "before": None, "after": "Für Käthe"}


def test_apply_and_export_are_for_administrators(dev: Dev, tmp_path: Path) -> None:
    for words in (("apply", "-f", written(tmp_path, FILE)), ("export",)):
        done = run(dev, *words, role="approver")
        assert (done.returncode, done.stdout) == (1, "")
        assert "permission_denied" in done.stderr


def test_apply_of_a_file_that_is_not_there_says_so(dev: Dev, tmp_path: Path) -> None:
    done = run(dev, "apply", "-f", str(tmp_path / "none.yaml"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "none.yaml cannot be read" in done.stderr
