"""What `penstock gpu` finds: this machine's GPUs, and what each SGLang entry of the catalogue runs."""

import os
import shlex
from typing import Any, Final

import httpx
import orjson

from core.settings import load_settings
from models.catalogue import Catalogue, SGLangModel, find_catalogue
from workers.engines.sglang_command import arguments, command, environment
from workers.gpu import Gpus

_PATIENCE: Final = 3.0  # seconds
_GIB: Final = 2**30
_SECRET: Final = "…"  # noqa: S105 - what stands in its place
_FREE_PORT: Final = 0


def report(*, as_json: bool) -> str:
    found = examine(Gpus(os.environ), find_catalogue(load_settings()))
    return orjson.dumps(found).decode() if as_json else "\n".join(lines_of(found))


def examine(gpus: Gpus, catalogue: Catalogue) -> dict[str, Any]:
    entries = [model for model in catalogue.models if isinstance(model, SGLangModel)]
    return {
        "gpus": [reading.as_dict() for reading in gpus.read()],
        "mig_instances": [instance.as_dict() for instance in gpus.instances()],
        "models": [attached(model) if model.url else started(model) for model in entries],
    }


def started(model: SGLangModel) -> dict[str, Any]:
    """The key and the port are made anew at each start; the arguments go to the child's standard input."""
    port = model.port or _FREE_PORT
    words = (*command(model), *arguments(model, port=port, api_key=_SECRET))
    return {"name": model.name, "environment": environment(model, {}), "command": shlex.join(words)}


def attached(model: SGLangModel) -> dict[str, Any]:
    """A server that runs already is asked how full its KV pool is."""
    url = str(model.url).rstrip("/").removesuffix("/v1")
    return {"name": model.name, "url": url, "kv_pool": _kv_pool(url, os.environ.get(model.api_key_env or ""))}


def _kv_pool(url: str, key: str | None) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.get(f"{url}/v1/loads", headers=headers, timeout=_PATIENCE).raise_for_status()
        return kv_pool(answer.json()["loads"])
    except (httpx.HTTPError, ValueError, KeyError) as error:
        return {"error": f"{type(error).__name__}: it does not say"}


def kv_pool(loads: list[dict[str, Any]]) -> dict[str, Any]:
    """Of all ranks together. Used means held by running requests: what is only cached can be evicted."""
    used, size = (sum(one[name] for one in loads) for name in ("num_used_tokens", "max_total_num_tokens"))
    running, waiting = (sum(one[name] for one in loads) for name in ("num_running_reqs", "num_waiting_reqs"))
    return {"used_tokens": used, "tokens": size, "running": running, "waiting": waiting}


def lines_of(found: dict[str, Any]) -> list[str]:
    lines = [_gpu(one) for one in found["gpus"]]
    lines = lines or ["No GPU: NVIDIA's driver does not answer here, or CUDA_VISIBLE_DEVICES hides them all."]
    lines += [f"MIG {one['uuid']} on GPU {one['gpu']}: {_memory(one)}" for one in found["mig_instances"]]
    for model in found["models"]:
        lines += ["", model["name"], *_model(model)]
    return lines if found["models"] else [*lines, "", "No entry of the catalogue runs on SGLang."]


def _model(model: dict[str, Any]) -> list[str]:
    if "command" in model:
        shown = [f"  {name}={value}" for name, value in model["environment"].items()]
        return [*shown, f"  {model['command']}"]
    pool = ", ".join(f"{name} {value}" for name, value in model["kv_pool"].items())
    return [f"  attached to {model['url']}", f"  KV pool: {pool}"]


def _gpu(one: dict[str, Any]) -> str:
    parts = [f"GPU {one['gpu']} {one['name']}: {_memory(one)}", f"{one['utilization']:.0%} busy"]
    parts += [] if one["temperature"] is None else [f"{one['temperature']} °C"]
    parts += [] if one["power"] is None else [f"{one['power']:.0f} W"]
    return ", ".join(parts)


def _memory(one: dict[str, Any]) -> str:
    return f"{one['memory_used'] / _GIB:.1f} of {one['memory'] / _GIB:.1f} GiB"
