"""llama.cpp, run in a supervised child process."""

import asyncio
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from time import monotonic
from typing import Any

import orjson

from core.errors import ConfigurationMistake, EngineUnavailable
from models.catalogue import LlamaCppModel
from workers.engines.llamacpp_server import ServerSettings
from workers.engines.openai_stream import Endpoint, OpenAIStream
from workers.engines.protocol import Delta, EngineHealth, Prompt
from workers.engines.request_body import Dialect
from workers.engines.supervisor import Launch, Restarts, Supervisor

_TINY_BYTES = 64 * 2**20
_PACKAGES = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True, slots=True)
class Watch:
    """`look_every` without a token we ask for progress; after `stall` without any, the child is killed."""

    look_every: timedelta = timedelta(seconds=1)
    stall: timedelta = timedelta(seconds=60)


class LlamaCppEngine:
    """`restarts` and `watch` are for tests and unusual machines."""

    def __init__(
        self, model: LlamaCppModel, *, restarts: Restarts | None = None, watch: Watch | None = None
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="penstock-llamacpp-"))  # 0700: only we may connect
        settings = _server_settings(model, self._folder)
        self._model = model
        self._watch = watch or Watch()
        self.endpoint = Endpoint("http://llamacpp", settings.api_key, settings.socket)
        dialect = Dialect(model.name, "repeat_penalty", template_switches=True, completion_schemas=True)
        self._stream = OpenAIStream(self.endpoint, dialect)
        self.supervisor = Supervisor(_launch(model, settings), self._is_ready, restarts=restarts)
        self._watcher: asyncio.Task[None] | None = None
        self._seen: Any = None

    async def start(self) -> None:
        self._stream.open()
        await self.supervisor.start()
        await self._check_context()
        self._watcher = asyncio.create_task(self._watch_progress(), name="watch-llamacpp")

    def generate(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        return self._stream.stream(prompt)

    async def abort(self, request_id: str) -> None:
        self._stream.abort(request_id)

    async def health(self) -> EngineHealth:
        return EngineHealth(self.supervisor.state, self._stream.progressed_at, self.supervisor.detail)

    async def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await self.supervisor.close()
        await self._stream.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _check_context(self) -> None:
        """llama.cpp cuts the context to what the model was trained for, in silence."""
        _, body = await self._stream.get("slots")
        actual = min(slot["n_ctx"] for slot in orjson.loads(body))
        if actual < self._model.context_length:
            await self.supervisor.close()
            raise ConfigurationMistake(
                f"{self._model.origin}: 'context_length': the model was not trained for "
                f"{self._model.context_length} tokens. Use at most {actual}."
            )

    async def _is_ready(self) -> bool:
        try:
            status, _ = await self._stream.get("health")
        except EngineUnavailable:
            return False
        return status == HTTPStatus.OK

    async def _watch_progress(self) -> None:
        look_every = self._watch.look_every.total_seconds()
        while True:
            await asyncio.sleep(look_every)
            quiet = monotonic() - self._stream.progressed_at
            if not self._stream.in_flight or quiet < look_every or self.supervisor.pid is None:
                continue
            await self._look_at_slots()
            if monotonic() - self._stream.progressed_at > self._watch.stall.total_seconds():
                self.supervisor.kill(f"no progress for {self._watch.stall}")

    async def _look_at_slots(self) -> None:
        """A prompt being read yields no token for a while: its slot tells how far it is."""
        try:
            status, body = await self._stream.get("slots", within=self._watch.stall)
        except EngineUnavailable:
            return
        seen = _positions(body) if status == HTTPStatus.OK else None
        if seen is not None and seen != self._seen:
            self._seen = seen
            self._stream.mark_progress()


def _positions(body: bytes) -> list[tuple[Any, ...]] | None:
    try:
        slots = orjson.loads(body)
        return [
            (s.get("id_task"), s["is_processing"], s.get("n_prompt_tokens_processed"), s.get("next_token"))
            for s in slots
        ]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None


def _server_settings(model: LlamaCppModel, folder: Path) -> ServerSettings:
    template = model.chat_template.read_text(encoding="utf-8") if model.chat_template else ""
    return ServerSettings(
        model=str(model.path),
        socket=str(folder / "llamacpp.sock"),
        api_key=secrets.token_urlsafe(32),
        slots=model.slots,
        context_length=model.context_length,
        threads=model.threads or _threads_for(model.path),
        batch_tokens=model.batch_tokens,
        gpu_layers=model.gpu_layers,
        chat_template=template,
    )


def _threads_for(path: Path) -> int:
    """For a tiny model two spinning threads on busy cores cost ten times one; else one per physical core."""
    if path.stat().st_size < _TINY_BYTES:
        return 1
    return max(1, (os.cpu_count() or 2) // 2)


def _launch(model: LlamaCppModel, settings: ServerSettings) -> Launch:
    search = os.pathsep.join(filter(None, (str(_PACKAGES), os.environ.get("PYTHONPATH"))))
    return Launch(
        name=f"llama.cpp[{model.name}]",
        argv=(sys.executable, "-m", "workers.engines.llamacpp_server"),
        stdin=settings.to_line(),
        environ={"OMP_WAIT_POLICY": "passive", "PYTHONPATH": search},
    )
