"""The catalogue of served LLMs: `models.toml`, typed, checked and safe to load again."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from core.errors import ConfigurationMistake, UnknownModel
from core.logs import get_logger
from core.settings import Settings

logger = get_logger(__name__)

_PROJECT = Path(__file__).resolve().parent.parent
BUNDLED_FOLDER = _PROJECT / "bundled"
BUNDLED = "bundled:support-tiny"
_BUNDLED_GGUF = BUNDLED_FOLDER / "support-tiny-Q8_0.gguf"
_BUNDLED_TOKENIZER = BUNDLED_FOLDER / "hf" / "tokenizer.json"


class ServedModel(BaseModel):
    """What every entry says, whatever engine runs it."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(
        min_length=1,
        max_length=100,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$",
        description="The name that requests use.",
    )
    revision: str = Field(
        default="1",
        description="Changes whenever answers would: cached answers of another revision are not used.",
    )
    tokenizer: Path | None = Field(
        default=None, description="A tokenizer.json, to count prompts before they are queued."
    )
    slots: PositiveInt = Field(default=8, description="Requests that one engine runs at once.")
    context_length: PositiveInt = Field(
        default=2048, description="Tokens that one request may take, prompt and answer together."
    )
    chat_template_overhead: NonNegativeInt = Field(
        default=8,
        description="The most tokens that the chat template adds to a message, and to open the answer.",
    )
    chat: bool = Field(
        default=True,
        description="A job's `prompt` is put as a user's message; false: it is continued as it is.",
    )
    reasoning: bool = Field(default=False, description="The model thinks before it answers.")
    tools: bool = Field(
        default=False, description="The chat template takes tools; false: requests with tools are refused."
    )
    gpus: PositiveInt = Field(default=1, description="GPUs that one worker of this model keeps.")
    gpu_hour_price: NonNegativeFloat = Field(
        default=0.0, description="What one GPU costs an hour, in any one currency: for the cost of tokens."
    )
    fallback: str | None = Field(
        default=None, description="A lighter served model for jobs that would wait too long for this one."
    )
    backup: str | None = Field(
        default=None, description="A served model for premium jobs while no worker runs this one."
    )
    origin: str = Field(default="", exclude=True, description="File and line of the entry, for messages.")


class LlamaCppModel(ServedModel):
    """A GGUF file that the worker runs in a llama.cpp server of its own."""

    engine: Literal["llamacpp"]
    path: Path = Field(description=f'A GGUF file, relative to this file, or "{BUNDLED}".')
    threads: PositiveInt | None = Field(
        default=None, description="Computing threads; left out: one for a tiny model, else half the CPUs."
    )
    batch_tokens: PositiveInt = Field(
        default=512,
        description="Prompt tokens per step. More reads long prompts faster; fewer keep answers flowing.",
    )
    gpu_layers: int = Field(default=-1, ge=-1, description="Layers on the GPU; -1: as many as fit.")
    chat_template: Path | None = Field(
        default=None, description="A Jinja chat template in place of the one inside the GGUF file."
    )


class OpenAIModel(ServedModel):
    """A model behind somebody's OpenAI-compatible server."""

    engine: Literal["openai"]
    url: HttpUrl = Field(description="The server's root or its /v1, for example http://gpu-1:8000.")
    api_key_env: str | None = Field(
        default=None, description="The environment variable that holds the server's API key."
    )
    remote_name: str | None = Field(default=None, description="The model's name there; left out: the same.")
    template_switches: bool = Field(
        default=False,
        description="The server takes chat_template_kwargs (vLLM, SGLang): needed for `reasoning`.",
    )


HIGH_CONCURRENCY = 256  # requests at once


class SGLangModel(ServedModel):
    """A model that the worker runs in an SGLang server of its own, or one that runs already, by `url`."""

    engine: Literal["sglang"]
    path: str = Field(default="", description=f'A model folder, a name on a hub, or "{BUNDLED}".')
    url: HttpUrl | None = Field(default=None, description="Attach to this server instead of starting one.")
    api_key_env: str | None = Field(
        default=None, description="With `url`: the environment variable that holds the server's API key."
    )
    remote_name: str | None = Field(default=None, description="With `url`: the model's name there.")
    python: Path = Field(
        default=_PROJECT / ".venv-sglang" / "bin" / "python",
        description="Interpreter of the environment that holds SGLang; `make sglang-env` builds one.",
    )
    port: int | None = Field(default=None, ge=1, le=65535, description="Loopback port; left out: a free one.")
    device: Literal["cuda", "cpu"] = Field(default="cuda", description="What it computes on.")
    gpu: str | None = Field(default=None, description="GPU index, GPU UUID or MIG instance UUID.")
    mps_thread_percentage: int | None = Field(
        default=None, ge=1, le=100, description="Share of the GPU's threads under a running MPS daemon."
    )
    numa_node: NonNegativeInt | None = Field(default=None, description="Bind to this node, with numactl.")
    preset: Literal["high-concurrency"] | None = Field(
        default=None,
        description="high-concurrency: prompts in chunks of 512 tokens, 4,096 of them per step, and answers"
        " streamed 16 tokens at a time.",
    )
    tensor_parallel: PositiveInt | None = Field(default=None, description="GPUs that share one model.")
    quantization: str | None = Field(default=None, description="fp8, awq, gptq and others that SGLang knows.")
    prefill_chunk: int | None = Field(default=None, description="Prompt tokens of one chunk; -1: whole.")
    batch_tokens: PositiveInt | None = Field(default=None, description="Prompt tokens per step.")
    stream_interval: PositiveInt | None = Field(
        default=None, description="Answer tokens per streamed piece; the first always comes alone."
    )
    memory_fraction: float | None = Field(
        default=None, gt=0, lt=1, description="Part of the GPU's memory for weights and the KV pool."
    )
    kv_tokens: PositiveInt | None = Field(default=None, description="Tokens in the KV pool at most.")
    host_cache_ratio: float | None = Field(
        default=None, gt=0, description="Keep evicted prefixes in host memory, this many KV pools of them."
    )
    adapters: dict[str, str] = Field(
        default_factory=dict,
        description="LoRA adapters to load: names and folders.",
    )
    adapter: str | None = Field(default=None, description="With `url`: the LoRA adapter that this entry is.")
    reasoning_parser: str | None = Field(
        default=None, description="Sets reasoning apart from the answer: deepseek-r1, qwen3 and others."
    )
    chat_template: str | None = Field(default=None, description="A template in place of the model's own.")
    priority_scheduling: bool = Field(
        default=False, description="SGLang orders its own queue by priority; needs its fcfs policy."
    )
    options: dict[str, str | int | float | bool | list[str | int | float]] = Field(
        default_factory=dict, description="More of SGLang's options by their names; these win."
    )
    environment: dict[str, str] = Field(default_factory=dict, description="Environment variables for it.")

    @model_validator(mode="after")
    def _path_or_url(self) -> Self:
        if bool(self.path) == (self.url is not None):
            raise ValueError("give either path, to start a server, or url, to attach to one")
        if self.preset == "high-concurrency" and self.slots > HIGH_CONCURRENCY:
            raise ValueError(
                f"the preset high-concurrency runs {HIGH_CONCURRENCY} requests: use at most so many slots"
            )
        return self


AnyModel = LlamaCppModel | OpenAIModel | SGLangModel
_ENTRY: TypeAdapter[AnyModel] = TypeAdapter(Annotated[AnyModel, Field(discriminator="engine")])


class Catalogue(BaseModel):
    """The models served, in the order of the file. Frozen: reloading makes another one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: tuple[AnyModel, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(model.name for model in self.models)

    @property
    def revisions(self) -> dict[str, str]:
        return {name: self.get(name).revision for name in self.names}

    def get(self, name: str | None) -> AnyModel:
        """The model of that name; with one model served, the name may be left out."""
        if name is None and len(self.models) == 1:
            return self.models[0]
        found = next((model for model in self.models if model.name == name), None)
        if found is None:
            asked = "No model was named" if name is None else f"No model is named {name!r}"
            raise UnknownModel("model", f"{asked}; served: {', '.join(self.names)}.")
        return found

    @classmethod
    def bundled(cls) -> Self:
        """The catalogue of a machine without `models.toml`: the bundled model, named `default`."""
        entry = LlamaCppModel(name="default", engine="llamacpp", path=Path(BUNDLED), origin="built-in")
        return cls(models=(_with_absolute_paths(entry, BUNDLED_FOLDER),))


def load_catalogue(path: Path) -> Catalogue:
    """Reads and checks the file; raises `ConfigurationMistake` with file, line and remedy."""
    text = _read(path)
    tables = _tables(path, text)
    source = _Source(path, text)
    models = tuple(_entry(source, index, table) for index, table in enumerate(tables))
    _refuse_duplicates(models)
    _refuse_strangers(models)
    return Catalogue(models=models)


def find_catalogue(settings: Settings) -> Catalogue:
    """The file that the settings name, or the bundled model where the default path holds none."""
    default = Settings.model_fields["catalogue"].default
    if settings.catalogue == default and not settings.catalogue.exists():
        return Catalogue.bundled()
    return load_catalogue(settings.catalogue)


def reread_catalogue(settings: Settings) -> Catalogue | None:
    """After SIGHUP: the catalogue as it now stands, or None where it has a mistake and the old one stays."""
    try:
        catalogue = find_catalogue(settings)
    except ConfigurationMistake as mistake:
        logger.error("catalogue_refused", reason=str(mistake))  # noqa: TRY400 - the sentence says it all
        return None
    logger.info("catalogue_read", models=list(catalogue.names))
    return catalogue


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationMistake(
            f"{path}: cannot be read ({error}). Create the file, or point to the right one."
        ) from error


def _tables(path: Path, text: str) -> list[dict[str, Any]]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        where = f"{path}:{line[1]}" if line else f"{path}:{text.count(chr(10)) + 1}"
        raise ConfigurationMistake(f"{where}: not TOML: {error}. Correct the syntax.") from error
    for key in document.keys() - {"model"}:
        raise ConfigurationMistake(
            f"{path}:{_Source(path, text).line_of_top(key)}: unknown {key!r}. Models are [[model]] tables."
        )
    tables = document.get("model")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise ConfigurationMistake(f"{path}:1: no model is served. Add a [[model]] table.")
    return tables


class _Source:
    """Finds the line of a table or a key: tomllib keeps no positions of what is valid TOML."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self._lines = text.splitlines()
        header = re.compile(r"^\s*\[\[\s*[\"']?model[\"']?\s*\]\]")
        self._starts = [number for number, line in enumerate(self._lines) if header.match(line)]

    def line_of(self, table: int, key: str | None = None) -> int:
        """The key's line, or the table's where the key is absent."""
        if table >= len(self._starts):  # written inline: model = [{…}]
            return 1
        start = self._starts[table]
        end = self._starts[table + 1] if table + 1 < len(self._starts) else len(self._lines)
        return self._find(key, start, end) if key else start + 1

    def line_of_top(self, key: str) -> int:
        return self._find(key, 0, len(self._lines))

    def _find(self, key: str, start: int, end: int) -> int:
        wanted = re.compile(rf"^\s*\[*\s*[\"']?{re.escape(key)}[\"']?\s*[=.\]]")
        found = (n for n in range(start, end) if wanted.match(self._lines[n]))
        return next(found, start) + 1


def _entry(source: _Source, index: int, table: dict[str, Any]) -> AnyModel:
    if "origin" in table:
        raise ConfigurationMistake(_sentence(source, index, "origin", "unknown key. Remove it"))
    origin = f"{source.path}:{source.line_of(index)}"
    try:
        model = _ENTRY.validate_python({**table, "origin": origin})
    except ValidationError as error:
        raise ConfigurationMistake(_explain(source, index, error)) from error
    return _with_absolute_paths(model, source.path.resolve().parent)


def _explain(source: _Source, index: int, error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    # Under a discriminated union the location starts with the tag; a bad tag has no location at all.
    key = str(first["loc"][1]) if len(first["loc"]) > 1 else "engine"
    remedy = {
        "extra_forbidden": "unknown key. Remove it, or correct its spelling",
        "missing": "required and missing. Add it",
        "union_tag_invalid": 'no such engine. Use "llamacpp", "sglang" or "openai"',
        "union_tag_not_found": 'required and missing. Add engine = "llamacpp", "sglang" or "openai"',
    }.get(first["type"], f"{first['msg']}. Correct the value")
    return _sentence(source, index, key, remedy)


def _sentence(source: _Source, index: int, key: str, remedy: str) -> str:
    return f"{source.path}:{source.line_of(index, key)}: {key!r}: {remedy}."


def _with_absolute_paths(model: AnyModel, folder: Path) -> AnyModel:
    changes: dict[str, Any] = {}
    if model.tokenizer is not None:
        changes["tokenizer"] = folder / model.tokenizer
    if isinstance(model, LlamaCppModel):
        bundled = str(model.path) == BUNDLED
        changes["path"] = _BUNDLED_GGUF if bundled else folder / model.path
        if bundled and model.tokenizer is None:
            changes["tokenizer"] = _BUNDLED_TOKENIZER
        if model.chat_template is not None:
            changes["chat_template"] = folder / model.chat_template
    if isinstance(model, SGLangModel):
        changes["python"] = folder / model.python
        if model.path == BUNDLED:
            changes["path"] = str(BUNDLED_FOLDER / "hf")
            changes.setdefault("tokenizer", _BUNDLED_TOKENIZER)
        elif model.path and (folder / model.path).is_dir():
            changes["path"] = str(folder / model.path)
    return model.model_copy(update=changes)


def _refuse_duplicates(models: tuple[AnyModel, ...]) -> None:
    first: dict[str, str] = {}
    for model in models:
        if model.name in first:
            raise ConfigurationMistake(
                f"{model.origin}: the name {model.name!r} is taken by {first[model.name]}. Choose another."
            )
        first[model.name] = model.origin


def _refuse_strangers(models: tuple[AnyModel, ...]) -> None:
    """`fallback` and `backup` name another entry."""
    names = {model.name for model in models}
    for model in models:
        for key, other in (("fallback", model.fallback), ("backup", model.backup)):
            if other is not None and (other not in names or other == model.name):
                raise ConfigurationMistake(
                    f"{model.origin}: {key!r}: {other!r} is no other model here. Name one, or remove it."
                )
