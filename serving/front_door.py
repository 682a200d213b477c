"""What every request passes before the server looks at it, from the cheapest check to the dearest.

Host and origin, key, limits of the key, a free place, then the body within its bounds. What is
refused costs neither memory nor the engine. On the way out it is timed, counted and logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import ip_address
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from serving.api_errors import ApiError
from serving.key_limits import KeyUse
from serving.keys import Key, Keys
from serving.logs import access, new_request_id, request_id
from serving.metrics import Metrics

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

OPEN = ("/healthz", "/readyz")
"""Paths that need no key."""
ADMIN = ("/", "/events", "/metrics", "/slo")
"""Paths that need an admin's key where there are keys."""
ANYBODY = Key(name="anybody", sha256="0" * 64, admin=True, max_priority=8)
"""Who asks where there are no keys."""
_CLIENT_LEFT = 499


class StalledClientError(OSError):
    """A client has stopped reading; its connection is given up."""


@dataclass(slots=True)
class Visit:
    """One request on its way; routes find it in `scope["visit"]`.

    Attributes:
        use: what the key has used.
        fields: what the route adds to the line in the log.
    """

    use: KeyUse
    fields: dict[str, Any] = field(default_factory=dict)
    status: int = _CLIENT_LEFT

    @property
    def key(self) -> Key:
        """Who asks."""
        return self.use.key


class FrontDoor:
    """ASGI middleware around the whole server.

    Args:
        app: behind it.
        keys: who may ask; anybody if there are none.
        max_queries: requests to /v1/ at once.
        max_body: bytes.
        stalled: seconds that a client may take to send or to read on.
        local: whether the server listens on this machine only.
        metrics: are told of each status.
    """

    def __init__(
        self,
        app: Any,
        *,
        keys: Keys,
        max_queries: int,
        max_body: int,
        stalled: float,
        local: bool,
        metrics: Metrics,
    ) -> None:
        self._app = app
        self.keys = keys
        self.max_queries = max_queries
        self.max_body = max_body
        self.stalled = stalled
        self.draining = False
        """Whether new queries are refused, for the server is about to end."""
        self._local = local
        self._metrics = metrics
        self._uses: dict[str, KeyUse] = {}
        self._inside = 0
        self._pace = 1.0  # seconds that a query takes, a running average

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, path, begin = Headers(scope=scope), scope["path"], monotonic()
        name = new_request_id(headers.get("x-request-id"))
        token = request_id.set(name)
        visit = scope["visit"] = Visit(KeyUse(ANYBODY))
        answer = self._answer(visit, name, send)
        try:
            with ExitStack() as on_exit:
                self._check_origin(headers)
                visit.use = self._recognise(headers, path)
                if path.startswith("/v1/") and scope["method"] == "POST":
                    self._enter(visit.use, on_exit)
                body = await self._read(headers, receive)
                await self._app(scope, _replay(body, receive), answer)
        except ApiError as error:
            await error.response()(scope, receive, answer)
        except StalledClientError:
            visit.fields["stalled"] = True
        finally:
            self._metrics.refused.labels(visit.status).inc()
            self._log(visit, scope, monotonic() - begin)
            request_id.reset(token)

    def _check_origin(self, headers: Headers) -> None:
        """Keep other web sites' pages out: a browser would let them ask a server on this machine."""
        host = headers.get("host", "")
        if self._local and not self.keys and not is_loopback(_name_of(host)):
            raise ApiError(403, f"this server is for this machine only, not for {host[:100]!r}")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise ApiError(403, "requests of other sites' pages are refused")

    def _recognise(self, headers: Headers, path: str) -> KeyUse:
        if not self.keys or path in OPEN:
            return self._use_of(ANYBODY)
        secret = _secret(headers.get("authorization", ""))
        if secret is None:
            raise ApiError(401, "give an API key: Authorization: Bearer KEY")
        key = self.keys.find(secret)
        if key is None:
            raise ApiError(401, "the API key is not known", code="invalid_api_key")
        if path in ADMIN and not key.admin:
            raise ApiError(403, "this needs the key of an admin")
        return self._use_of(key)

    def _use_of(self, key: Key) -> KeyUse:
        use = self._uses.get(key.name)
        if use is None or use.key != key:  # the file may have changed
            use = self._uses[key.name] = KeyUse(key)
        return use

    def _enter(self, use: KeyUse, on_exit: ExitStack) -> None:
        if self.draining:
            raise ApiError(503, "the server is shutting down", code="draining", retry_after=5)
        if self._inside >= self.max_queries:
            raise ApiError(
                429,
                f"the server is busy with {self._inside} queries",
                code="queue_full",
                retry_after=self._pace,
            )
        use.enter()
        self._inside += 1
        on_exit.callback(self._leave, use, monotonic())

    def _leave(self, use: KeyUse, begin: float) -> None:
        use.leave()
        self._inside -= 1
        self._pace += 0.1 * (monotonic() - begin - self._pace)

    async def _read(self, headers: Headers, receive: Receive) -> bytes:
        """The whole body."""
        length = headers.get("content-length")
        if length is not None and length.isdecimal() and int(length[:20]) > self.max_body:
            raise self._too_large()
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.stalled):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise StalledClientError("left before it had sent its request")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > self.max_body:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise ApiError(408, f"the body did not come within {self.stalled:g} s") from None

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the body is larger than {self.max_body} bytes")

    def _answer(self, visit: Visit, name: str, send: Send) -> Send:
        async def answer(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", name.encode())]
            try:
                async with asyncio.timeout(self.stalled):
                    await send(message)
            except TimeoutError:
                raise StalledClientError("the client does not read") from None

        return answer

    def _log(self, visit: Visit, scope: Scope, seconds: float) -> None:
        fields = {
            "method": scope["method"],
            "path": scope["path"][:200],
            "status": visit.status,
            "seconds": round(seconds, 4),
            "key": visit.key.name,
            **visit.fields,
        }
        access.info("%s %s", scope["method"], visit.status, extra={"fields": fields})


def is_loopback(host: str) -> bool:
    """Whether an address or a name means this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _name_of(host: str) -> str:
    """The host of a Host header, without port and brackets."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _secret(authorization: str) -> str | None:
    """The key of an Authorization header: a bearer's, or the password of Basic."""
    kind, _, value = authorization.partition(" ")
    if kind.lower() == "bearer" and value.strip():
        return value.strip()
    if kind.lower() == "basic":
        from base64 import b64decode

        try:
            return b64decode(value, validate=True).decode().partition(":")[2] or None
        except ValueError:
            return None
    return None


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body again, then whatever comes after it."""
    pending = [body]

    async def again() -> MutableMapping[str, Any]:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return again
