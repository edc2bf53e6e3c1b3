"""Platform settings: few, bounded, changed under a lock with their audit row."""

from __future__ import annotations

import pytest

from sb.errors import SbError
from sb.ops import bootstrap, settings
from sb.ops.governance_errors import (
    InvalidSettingError,
    SettingUnavailableError,
    UnknownSettingError,
)
from tests.ops.refusals import at_once
from tests.ops.world import NOW, TEST, World, at

KEY = settings.RESERVED_PRIORITY


def update(world: World, value: object, key: str = KEY) -> settings.Setting:
    found: settings.Setting = world.run(
        settings.update, by=TEST, key=key, value=value, now=at(minutes=1)
    )
    return found


def test_installation_starts_with_every_setting(world: World) -> None:
    (found,) = world.run(settings.list_settings)
    assert (found.key, found.value, found.updated_by) == (KEY, 9000, None)
    assert world.run(settings.find, key=KEY) == found


def test_starting_again_keeps_what_was_set(world: World) -> None:
    update(world, 500)
    world.run(bootstrap.seed, now=at(days=1))
    assert world.run(settings.find, key=KEY).value == 500


def test_update_is_audited_with_both_values(world: World) -> None:
    found = update(world, 500)
    assert (found.value, found.updated_by, found.updated_at) == (500, TEST.actor, at(minutes=1))
    (event,) = world.events(action="platform_setting.update")
    assert (event.actor, event.resource) == (TEST.actor, f"platform_setting:{KEY}")
    assert event.metadata == {
        "key": KEY,
        "old_value": 9000,
        "new_value": 500,
        "actor_permission_used": "policy.edit",
    }


def test_update_to_the_same_value_leaves_no_trace(world: World) -> None:
    before = world.run(settings.find, key=KEY)
    assert update(world, 9000) == before
    assert world.events(action="platform_setting.update") == []


@pytest.mark.parametrize("value", [99, 1_000_001, -1, 0, "9000", 9000.0, 500.5, True, None, [], {}])
def test_update_out_of_bounds_is_refused_with_them(world: World, value: object) -> None:
    error = world.refuse(
        InvalidSettingError, settings.update, by=TEST, key=KEY, value=value, now=NOW
    )
    assert error.details == {"min": 100, "max": 1_000_000, "field": "value"}
    assert world.run(settings.find, key=KEY).value == 9000


@pytest.mark.parametrize("value", [100, 1_000_000])
def test_update_takes_both_bounds(world: World, value: int) -> None:
    assert update(world, value).value == value


@pytest.mark.parametrize("key", ["", "PLATFORM_RESERVED_PRIORITY", "other", "\x00"])
def test_unknown_settings_are_not_found(world: World, key: str) -> None:
    world.refuse(UnknownSettingError, settings.find, key=key)
    world.refuse(UnknownSettingError, settings.update, by=TEST, key=key, value=1, now=NOW)


def test_unknown_rows_are_not_listed(world: World) -> None:
    world.insert("platform_settings", key="other", value={"value": 1}, updated_at=NOW)
    assert [found.key for found in world.run(settings.list_settings)] == [KEY]


def test_missing_setting_is_unavailable_until_the_next_start(world: World) -> None:
    world.write("DELETE FROM platform_settings")
    world.refuse(SettingUnavailableError, settings.find, key=KEY)
    world.refuse(SettingUnavailableError, settings.update, by=TEST, key=KEY, value=500, now=NOW)
    world.run(bootstrap.seed, now=at(days=1))
    assert world.run(settings.reserved_priority) == 9000


def test_updates_at_once_each_tell_the_value_they_replaced(world: World) -> None:
    values = [500, 600, 700, 800]
    outcomes = at_once([lambda value=value: update(world, value) for value in values])
    assert not [outcome for outcome in outcomes if isinstance(outcome, SbError)]
    told = [event.metadata for event in world.events(action="platform_setting.update")]
    chain = {facts["old_value"]: facts["new_value"] for facts in told}
    assert len(chain) == len(values)
    value = 9000
    for _ in values:
        value = chain[value]
    assert world.run(settings.find, key=KEY).value == value
