"""What Vault publishes of its API, held against the double.

With SB_TEST_VAULT_ADDR and SB_TEST_VAULT_TOKEN the same is held against a real Vault, whose KV
version 2 is at `secret/`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.agent.vault_double import VaultDouble, serving

REAL = os.environ.get("SB_TEST_VAULT_ADDR", "")
PLACES = ["double", *(["real"] if REAL else [])]


@pytest.fixture(params=PLACES)
def api(request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """A root token's client of Vault's API."""
    if request.param == "real":
        headers = {"X-Vault-Token": os.environ["SB_TEST_VAULT_TOKEN"]}
        with httpx.Client(base_url=f"{REAL}/v1", headers=headers) as http:
            yield http
        return
    with serving(VaultDouble()) as vault:
        headers = {"X-Vault-Token": vault.root.id}
        with httpx.Client(base_url=f"{vault.url}/v1", headers=headers) as http:
            yield http


@pytest.fixture
def name() -> str:
    return f"t-{secrets.token_hex(6)}"


def write(api: httpx.Client, name: str, data: Any, **options: Any) -> httpx.Response:
    return api.post(f"/secret/data/{name}", json={"data": data, "options": options})


def test_write_and_read_return_the_version_and_its_metadata(api: httpx.Client, name: str) -> None:
    written = write(api, name, {"A": "1", "N": 5})
    assert written.status_code == 200
    assert written.headers["content-type"] == "application/json"
    described = written.json()["data"]
    assert set(described) == {
        "created_time",
        "custom_metadata",
        "deletion_time",
        "destroyed",
        "version",
    }
    assert (described["version"], described["deletion_time"]) == (1, "")
    read = api.get(f"/secret/data/{name}").json()["data"]
    assert read["data"] == {"A": "1", "N": 5}
    assert read["metadata"] == described


def test_read_of_nothing_is_404_without_errors(api: httpx.Client, name: str) -> None:
    for path in (f"/secret/data/{name}", f"/secret/metadata/{name}"):
        answer = api.get(path)
        assert (answer.status_code, answer.json()) == (404, {"errors": []})


def test_write_with_another_version_is_refused_in_vaults_words(
    api: httpx.Client, name: str
) -> None:
    assert write(api, name, {"A": "1"}, cas=0).status_code == 200
    for cas in (0, 2):
        answer = write(api, name, {"A": "2"}, cas=cas)
        assert answer.status_code == 400
        assert answer.json() == {
            "errors": ["check-and-set parameter did not match the current version"]
        }
    assert write(api, name, {"A": "2"}, cas=1).json()["data"]["version"] == 2


def test_write_without_version_is_refused_where_it_is_required(
    api: httpx.Client, name: str
) -> None:
    assert api.post(f"/secret/metadata/{name}", json={"cas_required": True}).status_code == 204
    answer = write(api, name, {"A": "1"})
    assert answer.json() == {"errors": ["check-and-set parameter required for this call"]}
    assert write(api, name, {"A": "1"}, cas=0).status_code == 200


def test_write_without_data_is_refused(api: httpx.Client, name: str) -> None:
    answer = api.post(f"/secret/data/{name}", json={"options": {}})
    assert (answer.status_code, answer.json()) == (400, {"errors": ["no data provided"]})


def test_soft_deleted_version_is_404_with_its_metadata(api: httpx.Client, name: str) -> None:
    write(api, name, {"A": "1"})
    assert api.delete(f"/secret/data/{name}").status_code == 204
    answer = api.get(f"/secret/data/{name}")
    assert answer.status_code == 404
    data = answer.json()["data"]
    assert data["data"] is None
    assert data["metadata"]["version"] == 1
    assert data["metadata"]["deletion_time"] != ""
    assert write(api, name, {"A": "2"}, cas=0).status_code == 400
    assert write(api, name, {"A": "2"}, cas=1).json()["data"]["version"] == 2


def test_undeleted_version_is_back(api: httpx.Client, name: str) -> None:
    write(api, name, {"A": "1"})
    api.delete(f"/secret/data/{name}")
    assert api.post(f"/secret/undelete/{name}", json={"versions": [1]}).status_code == 204
    assert api.get(f"/secret/data/{name}").json()["data"]["data"] == {"A": "1"}


def test_destroyed_version_is_404_and_not_deleted(api: httpx.Client, name: str) -> None:
    write(api, name, {"A": "1"})
    assert api.put(f"/secret/destroy/{name}", json={"versions": [1]}).status_code == 204
    answer = api.get(f"/secret/data/{name}")
    assert answer.status_code == 404
    metadata = answer.json()["data"]["metadata"]
    assert (metadata["destroyed"], metadata["deletion_time"]) == (True, "")


def test_older_version_is_read_by_number(api: httpx.Client, name: str) -> None:
    write(api, name, {"A": "1"})
    write(api, name, {"A": "2"})
    assert api.get(f"/secret/data/{name}?version=1").json()["data"]["data"] == {"A": "1"}
    assert api.get(f"/secret/data/{name}?version=9").status_code == 404


def test_custom_metadata_belongs_to_the_key_and_survives_writes(
    api: httpx.Client, name: str
) -> None:
    body = {"custom_metadata": {"owner": "team"}}
    assert api.post(f"/secret/metadata/{name}", json=body).status_code == 204
    write(api, name, {"A": "1"})
    found = api.get(f"/secret/metadata/{name}").json()["data"]
    assert found["custom_metadata"] == {"owner": "team"}
    assert found["current_version"] == 1
    assert set(found["versions"]) == {"1"}
    read = api.get(f"/secret/data/{name}").json()["data"]
    assert read["metadata"]["custom_metadata"] == {"owner": "team"}


def test_deleting_metadata_forgets_every_version(api: httpx.Client, name: str) -> None:
    write(api, name, {"A": "1"})
    assert api.delete(f"/secret/metadata/{name}").status_code == 204
    assert api.get(f"/secret/data/{name}").json() == {"errors": []}
    assert write(api, name, {"A": "1"}, cas=0).json()["data"]["version"] == 1


def test_list_names_keys_and_folders(api: httpx.Client, name: str) -> None:
    write(api, f"{name}/a", {"A": "1"})
    write(api, f"{name}/b/c", {"A": "1"})
    for answer in (
        api.request("LIST", f"/secret/metadata/{name}"),
        api.get(f"/secret/metadata/{name}?list=true"),
    ):
        assert answer.json()["data"]["keys"] == ["a", "b/"]
    assert api.request("LIST", f"/secret/metadata/{name}-none").status_code == 404


def test_only_the_latest_versions_are_kept(api: httpx.Client, name: str) -> None:
    api.post(f"/secret/metadata/{name}", json={"max_versions": 2})
    for number in range(4):
        write(api, name, {"A": str(number)})
    found = api.get(f"/secret/metadata/{name}").json()["data"]
    assert (set(found["versions"]), found["oldest_version"]) == ({"3", "4"}, 3)


def test_wrong_token_is_403_with_permission_denied(api: httpx.Client, name: str) -> None:
    answer = api.get(f"/secret/data/{name}", headers={"X-Vault-Token": "hvs.wrong"})
    assert answer.status_code == 403
    assert "permission denied" in answer.json()["errors"][0]


def test_root_token_looks_up_as_endless(api: httpx.Client) -> None:
    found = api.get("/auth/token/lookup-self").json()["data"]
    assert (found["ttl"], found["expire_time"]) == (0, None)
    answer = api.post("/auth/token/renew-self")
    assert answer.status_code == 400


def test_unknown_route_is_404_with_its_path(api: httpx.Client) -> None:
    answer = api.get("/no-such-mount/data/x")
    assert answer.status_code == 404
    assert "no handler for route" in answer.json()["errors"][0]
