"""One server: where it is, how it stands, what it lists, and how much of our work it has.

``engine`` makes one for each entry and has it looked at; ``requests`` chooses among them.
Invariants: a server that failed is left alone until its rest is over; looking raises nothing and takes
no longer than ``LOOK_SECONDS``; a token goes nowhere but into the head of a request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from autotuned.core.engine import Finding, Severity
from autotuned.core.ports import Clock
from autotuned.core.upstream import Upstream
from autotuned.engines.endpoint import Endpoint
from autotuned.engines.http import ConnectionBroken, ConnectionSilent, Exchange
from autotuned.engines.http_pool import ConnectionPool
from autotuned.engines.openai.kinds import TRAITS, Ability, ServerKind
from autotuned.engines.openai.listing import Listed, Properties, read_list, read_properties, read_version
from autotuned.engines.openai.tokens import TokenRefused, read_token
from autotuned.log import fields

LOOK_SECONDS = 2.0
FIRST_REST_SECONDS = 1.0
LONGEST_REST_SECONDS = 60.0
# A server that says when to come again is believed up to this.
LONGEST_BUSY_SECONDS = 3600.0
# Requests that a server gets at the same time where nobody says how many it takes: all but the smallest
# batch them.
USUAL_SLOTS = 4

OK = 200
UNAUTHORIZED = frozenset({401, 403})
NOT_FOUND = 404
NOT_READY = 503
_VERSION_PATH = "/v1"

_log = logging.getLogger(__name__)


class Server:
    """A server that is an equal of the others with its name."""

    def __init__(self, upstream: Upstream, *, environment: Mapping[str, str], clock: Clock) -> None:
        self._upstream = upstream
        self._environment = environment
        self._clock = clock
        self._endpoint = Endpoint.of_url(_base_url(upstream.url))
        self._has_token = upstream.token_source is None
        self._pool = ConnectionPool() if self._endpoint.tls else None
        self._properties: Properties | None = None
        self._listed: dict[str, Listed] = {}
        self._rests_until = 0.0
        self._failures_count = 0
        self._look_failed = False
        self._was_looked_at = False
        self.kind = ServerKind.OTHER
        self.version = ""
        self.is_up = False
        self.is_busy = False
        self.is_starting = False
        self._list_status = 0
        self.problem = "it was not looked at yet"
        self.active_count = 0

    @property
    def url(self) -> str:
        """Where it is, without its token."""
        return self._endpoint.url

    @property
    def models(self) -> Mapping[str, Listed]:
        """What it listed when it was looked at last; nothing while it is down."""
        return self._listed if self.is_up else {}

    @property
    def token_place(self) -> str:
        """Where its token comes from, as its entry says it; "" where it has none."""
        source = self._upstream.token_source
        return source.text if source else ""

    @property
    def ability(self) -> Ability:
        """What it can do, as far as it was recognized."""
        told = self._properties or Properties()
        return Ability(
            kind=self.kind,
            images=TRAITS[self.kind].images if told.reads_images is None else told.reads_images,
            slots_count=self._upstream.slots_count or told.slots_count or USUAL_SLOTS,
        )

    @property
    def rest_seconds(self) -> float:
        """How long it is still left alone; 0 where it may be asked."""
        return max(0.0, self._rests_until - self._clock.monotonic())

    @property
    def is_usable(self) -> bool:
        """Whether a request may go to it now."""
        return self.is_up and self._has_token and not self.rest_seconds

    def exchange(
        self, target: str, body: bytes, *, silence_seconds: float, at_root: bool = False
    ) -> Exchange:
        """A request to it, to be entered; ``at_root`` for what lies beside the versioned paths."""
        endpoint = self._root() if at_root else self._endpoint
        return Exchange(
            endpoint=endpoint,
            method="POST" if body else "GET",
            target=target,
            body=body,
            silence_seconds=silence_seconds,
            pool=self._pool,
        )

    def failed(self, problem: str, *, rest_seconds: float = 0.0, is_busy: bool = False) -> None:
        """It did not do what it was asked: it rests, the longer the oftener that happened in a row."""
        rest = min(FIRST_REST_SECONDS * 2.0**self._failures_count, LONGEST_REST_SECONDS)
        self._failures_count = min(self._failures_count + 1, 10)
        self._rests_until = self._clock.monotonic() + (min(rest_seconds, LONGEST_BUSY_SECONDS) or rest)
        self.is_busy = is_busy
        self.problem = problem

    def served(self) -> None:
        """It answered a request to its end."""
        self._failures_count = 0
        self._rests_until = 0.0
        self.is_busy = self._look_failed = False
        self.problem = ""

    async def look(self) -> None:
        """Looks what it has, unless it rests. Raises nothing for what it finds."""
        if self.rest_seconds:
            return
        was_up, self.is_starting, self._was_looked_at = self.is_up, False, True
        self._list_status = 0
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._read_token()
                problem = await self._read_list()
        except TokenRefused as error:
            problem = str(error)
        except TimeoutError:
            problem = "it does not answer in time"
        except (ConnectionBroken, ConnectionSilent) as error:
            problem = f"it cannot be reached: {error}"
        self.is_up = not problem
        if problem:
            self._properties = None
            self._look_failed = True
            self.failed(problem)
        elif self._look_failed:
            self.served()
        if not problem and not self._failures_count:
            self.problem = ""
        if was_up != self.is_up:
            told = fields(engine=self._upstream.name, url=self.url, problem=problem)
            _log.log(logging.INFO if self.is_up else logging.WARNING, "server looked at", extra=told)

    def findings(self) -> list[Finding]:
        """What a person should know of it."""
        name, found = self._upstream.name, []
        if self.token_place and not self._endpoint.tls and not _is_loopback(self._endpoint.host):
            found.append(
                Finding(
                    code="token-over-plain-http",
                    severity=Severity.WARNING,
                    subject=name,
                    text=f"The token of {self.url} goes over the network in plain text.",
                    advice="Use an https URL.",
                )
            )
        if not self._was_looked_at:
            return found
        if not self._has_token:
            found.append(
                Finding(
                    code="token-missing",
                    severity=Severity.PROBLEM,
                    subject=name,
                    text=f"{self.url} is not used without its token: {self.problem}.",
                    advice=self._token_advice(),
                )
            )
        elif not self.is_up:
            found.append(
                Finding(
                    code="server-unreachable",
                    severity=Severity.WARNING,
                    subject=name,
                    text=f"{self.url} is not used: {self.problem}.",
                    advice=self._advice(),
                )
            )
        return found

    def close(self) -> None:
        """Closes what is kept open."""
        if self._pool is not None:
            self._pool.close()

    async def _read_token(self) -> None:
        source = self._upstream.token_source
        if source is None:
            return
        self._has_token = False
        token = await asyncio.to_thread(read_token, source, self._environment)
        self._has_token = True
        if token != self._endpoint.bearer_token:
            self._endpoint = Endpoint.of_url(_base_url(self._upstream.url), token)

    async def _read_list(self) -> str:
        """Reads what it lists, and once what it is; what is wrong with it, "" for nothing."""
        status, server_header, body = await self._get("/models")
        self.is_starting = status == NOT_READY
        self._list_status = status
        if status in UNAUTHORIZED:
            return f"it refuses {self.token_problem()}"
        if status != OK:
            return f"it answers {status} when asked for its models"
        try:
            kind, listed = read_list(body, server_header)
        except ValueError as error:
            return f"its list of models cannot be read ({error})"
        if kind is not self.kind or self._properties is None:
            self.kind = kind
            await self._recognize()
        properties = self._properties or Properties()
        if kind is ServerKind.LLAMACPP and len(listed) == 1:
            listed = [properties.applied_to(each) for each in listed]
        self._listed = {each.id: each for each in listed}
        return ""

    def token_problem(self) -> str:
        """What a server refused that lets nobody in, and where to look."""
        place = self.token_place
        return f"the token of {place}" if place else "requests without a token"

    def _token_advice(self) -> str:
        source = self._upstream.token_source
        if source and source.kind == "env":
            return (
                f'Set {source.place} where the daemon is started, and restart it: "autotunectl stop" ends it.'
            )
        return f'The entry of "{self._upstream.name}" in openai.upstreams says where the token comes from.'

    def _advice(self) -> str:
        """What to do about a server that is not there, by what it answered."""
        if self._list_status in UNAUTHORIZED and self.token_place:
            return f"Put the token that it takes into {self.token_place}."
        if self._list_status in UNAUTHORIZED:
            return "Add token=env:VARIABLE or token=file:PATH to its entry in openai.upstreams."
        if self._list_status == NOT_FOUND:
            return 'Correct its URL in openai.upstreams: most end with "/v1".'
        return "Start it, or take its entry out of openai.upstreams."

    async def _recognize(self) -> None:
        """Asks what only this program tells. What it does not tell stays unknown."""
        self._properties = Properties()
        self.version = self.kind.value
        try:
            if self.kind is ServerKind.LLAMACPP:
                status, _, body = await self._get("/props", at_root=True)
                if status == OK:
                    self._properties = read_properties(body)
                    self.version = f"{self.kind.value} {self._properties.build}".strip()
            elif self.kind in {ServerKind.VLLM, ServerKind.SGLANG}:
                status, _, body = await self._get("/version", at_root=True)
                if status == OK:
                    self.version = f"{self.kind.value} {read_version(body)}".strip()
        except (ConnectionBroken, ConnectionSilent, ValueError) as error:
            told = fields(engine=self._upstream.name, url=self.url, problem=str(error))
            _log.info("server tells nothing of itself", extra=told)

    async def _get(self, target: str, *, at_root: bool = False) -> tuple[int, str, bytes]:
        """Status, name of the server, and body."""
        async with self.exchange(target, b"", silence_seconds=LOOK_SECONDS, at_root=at_root) as exchange:
            status = await exchange.status()
            return status, await exchange.header("server"), await exchange.read_all()

    def _root(self) -> Endpoint:
        return self._endpoint.at(self._endpoint.base_path.removesuffix(_VERSION_PATH))


def _base_url(url: str) -> str:
    """Where the targets begin: a URL without a path means the usual one."""
    return url if urlsplit(url).path.strip("/") else url.rstrip("/") + _VERSION_PATH


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
