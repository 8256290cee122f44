"""SGLang, run in a supervised child process or attached to by its address."""

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncGenerator
from datetime import timedelta
from http import HTTPStatus
from time import monotonic
from typing import Final

from core.errors import ConfigurationMistake, EngineUnavailable
from models.catalogue import SGLangModel
from workers.engines.openai_stream import Endpoint, OpenAIStream
from workers.engines.protocol import Delta, EngineHealth, EngineState, Prompt
from workers.engines.request_body import Dialect
from workers.engines.sglang_aborts import Aborts
from workers.engines.sglang_command import arguments, command, environment
from workers.engines.supervisor import Launch, Restarts, Supervisor

_LOOK_EVERY: Final = 1.0  # seconds
_PATIENT: Final = Restarts(stop_within=timedelta(seconds=15))


class SGLangEngine:
    """Speaks to SGLang's OpenAI routes: they apply the model's chat template and set its reasoning apart.

    They take `rid`, `priority`, a salt and an adapter as /generate does. `restarts` is for tests.
    """

    def __init__(
        self, model: SGLangModel, *, api_key: str | None = None, restarts: Restarts | None = None
    ) -> None:
        self._model = model
        self.supervisor: Supervisor | None = None
        if model.url is not None:
            self.endpoint = Endpoint(str(model.url).rstrip("/").removesuffix("/v1"), api_key)
        else:
            port, key = model.port or _free_port(), secrets.token_urlsafe(32)
            self.endpoint = Endpoint(f"http://127.0.0.1:{port}", key)
            launch = _launch(model, port=port, api_key=key)
            self.supervisor = Supervisor(launch, self._is_ready, restarts=restarts or _PATIENT)
        self._aborts = Aborts(lambda rid: self._stream.tell("abort_request", {"rid": rid}))
        self._stream = OpenAIStream(self.endpoint, _dialect(model), abandoned=self._aborts.note)
        self._watcher: asyncio.Task[None] | None = None
        self._attached = EngineState.STARTING

    async def start(self) -> None:
        self._stream.open()
        if self.supervisor is not None:
            await self.supervisor.start()
        elif not await self._is_ready():
            raise EngineUnavailable(f"No SGLang server is ready at {self.endpoint.url}: start it first.")
        self._attached = EngineState.READY
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch_progress(), name="watch-sglang")

    def generate(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        return self._stream.stream(prompt)

    async def abort(self, request_id: str) -> None:
        self._stream.abort(request_id)

    async def health(self) -> EngineHealth:
        if self.supervisor is None:
            if self._stream.is_doubted and self._attached is not EngineState.CLOSED:
                await self._look()
            return EngineHealth(self._attached, self._stream.progressed_at)
        return EngineHealth(self.supervisor.state, self._stream.progressed_at, self.supervisor.detail)

    async def close(self) -> None:
        self._attached = EngineState.CLOSED
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        if self.supervisor is not None:
            await self.supervisor.close()
        await self._aborts.close()
        await self._stream.close()

    async def _is_ready(self) -> bool:
        try:
            status, _ = await self._stream.get("health")
        except EngineUnavailable:
            return False
        return status == HTTPStatus.OK

    async def _watch_progress(self) -> None:
        """A long prompt yields no token for a while: one small request tells whether the scheduler moves."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            quiet = monotonic() - self._stream.progressed_at > _LOOK_EVERY
            if self.supervisor is None or (self._stream.in_flight and quiet):
                await self._look()

    async def _look(self) -> None:
        path = "health_generate" if self._stream.in_flight else "health"
        try:
            status, _ = await self._stream.get(path, within=timedelta(seconds=20))
        except EngineUnavailable:
            status = HTTPStatus.SERVICE_UNAVAILABLE
        alive = status == HTTPStatus.OK
        self._attached = EngineState.READY if alive else EngineState.UNREACHABLE
        if alive and self._stream.in_flight:
            self._stream.mark_progress()


def _dialect(model: SGLangModel) -> Dialect:
    served = model.remote_name or model.name
    return Dialect(
        f"{served}:{model.adapter}" if model.adapter else served,
        template_switches=True,
        completion_schemas=True,
        schema_as_text=True,
        request_ids=True,
    )


def _launch(model: SGLangModel, *, port: int, api_key: str) -> Launch:
    if any("\n" in str(word) or "\0" in str(word) for word in model.options.values()):
        raise ConfigurationMistake(f"{model.origin}: 'options': no line breaks, please.")
    words = arguments(model, port=port, api_key=api_key)
    return Launch(
        name=f"sglang[{model.name}]",
        argv=command(model),
        stdin="\0".join(words).encode() + b"\n",
        environ=environment(model, os.environ),
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
