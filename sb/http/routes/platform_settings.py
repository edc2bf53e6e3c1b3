"""Routes of platform settings."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from sb.clock import utc_now
from sb.http.bodies import Body
from sb.http.declare import Call, Reply, Session, route
from sb.http.policy_metrics import setting_counted
from sb.http.polls import wake
from sb.ops import governance_errors as refusals
from sb.ops import settings


class SettingBody(Body):
    key: str
    value: int
    updated_at: datetime
    updated_by: str | None


class UpdateSetting(Body):
    """The new value; `key` is accepted for old clients and ignored: the path names the setting."""

    value: Any = None
    key: Any = Field(default=None, exclude=True)


@route(
    "GET",
    "/platform-settings",
    access=Session("policy.edit", scope="global"),
    returns=list[SettingBody],
    summary="List the platform settings",
)
async def list_settings(call: Call[Any]) -> Reply:
    found = await call.state.db.read(settings.list_settings)
    return Reply([_setting(setting) for setting in found])


@route(
    "GET",
    "/platform-settings/<name:key>",
    access=Session("policy.edit", scope="global"),
    returns=SettingBody,
    errors=(refusals.UnknownSettingError, refusals.SettingUnavailableError),
    summary="Show a platform setting",
)
async def show_setting(call: Call[Any]) -> Reply:
    return Reply(_setting(await call.state.db.read(settings.find, key=call.ids["key"])))


@route(
    "PUT",
    "/platform-settings/<name:key>",
    access=Session("policy.edit", scope="global"),
    body=UpdateSetting,
    returns=SettingBody,
    errors=(
        refusals.UnknownSettingError,
        refusals.InvalidSettingError,
        refusals.SettingUnavailableError,
    ),
    summary="Change a platform setting",
)
async def update_setting(call: Call[UpdateSetting]) -> Reply:
    key = call.ids["key"]
    with setting_counted(call, key):
        found = await call.state.db.run(
            settings.update, by=call.person, key=key, value=call.body.value, now=utc_now()
        )
    await wake(call, settings.changed_channel(key))
    return Reply(_setting(found))


def _setting(setting: settings.Setting) -> SettingBody:
    return SettingBody(**{name: getattr(setting, name) for name in SettingBody.model_fields})
