"""Somebody else's OpenAI-compatible server, attached by its address."""

from collections.abc import AsyncGenerator
from datetime import timedelta
from http import HTTPStatus
from time import monotonic

from core.errors import EngineUnavailable
from models.catalogue import OpenAIModel
from workers.engines.openai_stream import Endpoint, OpenAIStream, Patience
from workers.engines.protocol import Delta, EngineHealth, EngineState, Prompt
from workers.engines.request_body import Dialect

_REFUSALS = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})


class OpenAIEngine:
    """Its server is asked how it is after `probe_after` without any answer, and after a broken one."""

    def __init__(
        self,
        endpoint: Endpoint,
        dialect: Dialect,
        *,
        patience: Patience | None = None,
        probe_after: timedelta = timedelta(seconds=10),
    ) -> None:
        self._probe_after = probe_after.total_seconds()
        self._stream = OpenAIStream(endpoint, dialect, patience=patience)
        self._state = EngineState.STARTING

    @classmethod
    def from_catalogue(cls, model: OpenAIModel, *, api_key: str | None) -> "OpenAIEngine":
        url = str(model.url).rstrip("/").removesuffix("/v1")
        dialect = Dialect(model.remote_name or model.name, template_switches=model.template_switches)
        return cls(Endpoint(url, api_key), dialect)

    async def start(self) -> None:
        self._stream.open()
        await self._probe()
        self._state = EngineState.READY

    def generate(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        return self._stream.stream(prompt)

    async def abort(self, request_id: str) -> None:
        self._stream.abort(request_id)

    async def health(self) -> EngineHealth:
        if self._state in {EngineState.STARTING, EngineState.CLOSED}:
            return EngineHealth(self._state, self._stream.progressed_at)
        is_fresh = monotonic() - self._stream.progressed_at < self._probe_after
        if is_fresh and not self._stream.is_doubted:
            return EngineHealth(EngineState.READY, self._stream.progressed_at)
        try:
            await self._probe()
        except EngineUnavailable as error:
            return EngineHealth(EngineState.UNREACHABLE, self._stream.progressed_at, str(error))
        if self._stream.in_flight:
            # Another's server does not say how far it has read a prompt. That it answers is all we
            # can know; the stream's own `silence` limit ends what never comes.
            self._stream.mark_progress()
        return EngineHealth(EngineState.READY, self._stream.progressed_at)

    async def close(self) -> None:
        self._state = EngineState.CLOSED
        await self._stream.close()

    async def _probe(self) -> None:
        status, _ = await self._stream.get("v1/models")
        if status in _REFUSALS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise EngineUnavailable(f"The server answered {status} to /v1/models: check its key and its log.")
