"""Coordination through Redis: the synchronous client in threads, short timeouts, atomic scripts.

Keys are `<namespace>:<kind>:<rest>` and every one of them ends by itself. No secret value is ever
in a key, a value or a message.
"""

from __future__ import annotations

import logging
import random
import secrets
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Final, TypeVar, cast

import redis
import trio
from redis.backoff import NoBackoff
from redis.retry import Retry

from sb.clock import monotonic
from sb.coord import CoordUnavailableError, Lock, RateDecision, Subscription
from sb.coord.signals import Switchboard
from sb.sanitize import sanitize_error
from sb.threads import run_blocking

log = logging.getLogger(__name__)

T = TypeVar("T")

SOCKET_SECONDS: Final = 0.8
#: After a failure, calls fail at once for this long, so that a frozen Redis cannot use up threads.
OPEN_CIRCUIT_SECONDS: Final = 0.5
LISTEN_SECONDS: Final = 0.25
#: A connection this silent is asked whether it is there, and given up after as long again.
SILENCE_SECONDS: Final = 1.0
RECONNECT_SECONDS: Final = (0.2, 2.0)
#: Fences outlive every lease by far, so that they keep growing over expiries.
FENCE_TTL_SECONDS: Final = 7 * 86400

_ACQUIRE = """
if redis.call('set', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  local fence = redis.call('incr', KEYS[2])
  redis.call('expire', KEYS[2], ARGV[3])
  return fence
end
return 0
"""
_RENEW = """
if redis.call('get', KEYS[1]) == ARGV[1] then
  return redis.call('pexpire', KEYS[1], ARGV[2])
end
return 0
"""
_RELEASE = """
if redis.call('get', KEYS[1]) == ARGV[1] then
  return redis.call('del', KEYS[1])
end
return 0
"""
# A sliding log on the server's own clock, so that replicas with skewed clocks agree.
_HIT = """
local time = redis.call('time')
local now = time[1] * 1000000 + time[2]
local window = ARGV[1] * 1000000
redis.call('zremrangebyscore', KEYS[1], '-inf', now - window)
if redis.call('zcard', KEYS[1]) < tonumber(ARGV[2]) then
  redis.call('zadd', KEYS[1], now, now .. ':' .. ARGV[3])
  redis.call('expire', KEYS[1], ARGV[1] * 2)
  return 0
end
local oldest = redis.call('zrange', KEYS[1], 0, 0, 'WITHSCORES')
if #oldest == 0 then
  return tonumber(ARGV[1])
end
return math.max(1, math.ceil((oldest[2] + window - now) / 1000000))
"""


class RedisCoordinator:
    """A coordinator shared by every process that names the same Redis and namespace."""

    def __init__(self, url: str, *, namespace: str = "secrets-bridge", pool_size: int = 10) -> None:
        self._namespace = namespace
        self._limiter = trio.CapacityLimiter(pool_size)
        self._client = redis.Redis.from_url(
            url,
            max_connections=pool_size + 2,
            socket_timeout=SOCKET_SECONDS,
            socket_connect_timeout=SOCKET_SECONDS,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
            decode_responses=True,
        )
        self._acquire = self._client.register_script(_ACQUIRE)
        self._renew = self._client.register_script(_RENEW)
        self._release = self._client.register_script(_RELEASE)
        self._hit = self._client.register_script(_HIT)
        self._switchboard = Switchboard()
        self._closed_until = 0.0

    def _key(self, kind: str, rest: str) -> str:
        return f"{self._namespace}:{kind}:{rest}"

    async def _call(self, call: Callable[[], T]) -> T:
        if monotonic() < self._closed_until:
            raise CoordUnavailableError(headers={"Retry-After": "2"})
        return await run_blocking(partial(self._guarded, call), limiter=self._limiter)

    def _guarded(self, call: Callable[[], T]) -> T:
        # Checked again here: whoever waited for a thread behind a frozen call must not freeze too.
        if monotonic() < self._closed_until:
            raise CoordUnavailableError(headers={"Retry-After": "2"})
        try:
            return call()
        except redis.RedisError as problem:
            self._closed_until = monotonic() + OPEN_CIRCUIT_SECONDS
            raise CoordUnavailableError(headers={"Retry-After": "2"}) from problem

    async def acquire(self, name: str, *, ttl_seconds: float) -> Lock | None:
        token = secrets.token_hex(16)
        keys = [self._key("lock", name), self._key("fence", name)]
        args: list[str | int] = [token, int(ttl_seconds * 1000), FENCE_TTL_SECONDS]
        fence = int(await self._call(lambda: self._acquire(keys=keys, args=args)))
        return Lock(name=name, token=token, fence=fence) if fence else None

    async def renew(self, lock: Lock, *, ttl_seconds: float) -> bool:
        keys = [self._key("lock", lock.name)]
        args: list[str | int] = [lock.token, int(ttl_seconds * 1000)]
        return bool(await self._call(lambda: self._renew(keys=keys, args=args)))

    async def release(self, lock: Lock) -> bool:
        keys = [self._key("lock", lock.name)]
        return bool(await self._call(lambda: self._release(keys=keys, args=[lock.token])))

    async def hit(self, bucket: str, key: str, *, limit: int, window_seconds: int) -> RateDecision:
        keys = [self._key("rate", f"{bucket}:{key}")]
        args: list[str | int] = [window_seconds, limit, secrets.token_hex(8)]
        wait = int(await self._call(lambda: self._hit(keys=keys, args=args)))
        return RateDecision(allowed=wait == 0, retry_after_seconds=wait)

    async def put_state(self, kind: str, key: str, value: str, *, ttl_seconds: float) -> None:
        name = self._key("state", f"{kind}:{key}")
        await self._call(lambda: self._client.set(name, value, px=int(ttl_seconds * 1000)))

    async def take_state(self, kind: str, key: str) -> str | None:
        name = self._key("state", f"{kind}:{key}")
        return cast("str | None", await self._call(lambda: self._client.getdel(name)))

    async def publish(self, channel: str) -> None:
        # Listeners of this process need no round trip and keep working while Redis is away.
        self._switchboard.wake(channel)
        await self._call(lambda: self._client.publish(self._key("ch", channel), "1"))

    def subscribe(self, channel: str) -> AbstractAsyncContextManager[Subscription]:
        return self._switchboard.listen(channel)

    async def ping(self) -> None:
        await self._call(self._client.ping)

    async def run(self, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
        """Deliver signals of other processes until cancelled; a lost connection is made again."""
        task_status.started()
        limiter = trio.CapacityLimiter(1)
        delay = RECONNECT_SECONDS[0]
        while True:
            pubsub = self._client.pubsub()  # type: ignore[no-untyped-call]
            try:
                await run_blocking(partial(self._subscribed, pubsub), limiter=limiter)
                # What was said while nobody listened is lost: let everybody look for themselves.
                self._switchboard.wake_all()
                delay = RECONNECT_SECONDS[0]
                await self._listen(pubsub, limiter)
            except redis.RedisError as problem:
                # What the server said tells a wrong password from a dead host; no value is in it.
                fields = {"retry_seconds": delay, "error": sanitize_error(str(problem))}
                log.warning("signals interrupted", extra={"fields": fields})
            finally:
                pubsub.close()
            await trio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311
            delay = min(delay * 2, RECONNECT_SECONDS[1])

    async def _listen(self, pubsub: Any, limiter: trio.CapacityLimiter) -> None:
        prefix, heard_at, asked = self._key("ch", ""), monotonic(), False
        while True:
            message = await run_blocking(
                lambda: pubsub.get_message(timeout=LISTEN_SECONDS), limiter=limiter
            )
            if message is not None:
                heard_at, asked = monotonic(), False
                if message["type"] == "pmessage":
                    self._switchboard.wake(str(message["channel"]).removeprefix(prefix))
            elif monotonic() - heard_at > 2 * SILENCE_SECONDS:
                # Nobody tells when a firewall forgot the connection or the machine is gone.
                raise redis.ConnectionError
            elif not asked and monotonic() - heard_at > SILENCE_SECONDS:
                await run_blocking(pubsub.ping, limiter=limiter)
                asked = True

    def _subscribed(self, pubsub: Any) -> None:
        """Return once the server says that the subscription is in force."""
        pubsub.psubscribe(self._key("ch", "*"))
        message = pubsub.get_message(timeout=SOCKET_SECONDS)
        if message is None or message["type"] != "psubscribe":
            raise redis.ConnectionError

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
        self._client.close()
