"""Which engine runs an entry of the catalogue."""

from collections.abc import Mapping

from core.errors import ConfigurationMistake
from models.catalogue import AnyModel, LlamaCppModel, OpenAIModel, SGLangModel
from workers.engines.protocol import Engine


def build_engine(model: AnyModel, *, environ: Mapping[str, str]) -> Engine:
    """Not started yet; raises `ConfigurationMistake` where the entry does not fit this machine.

    `environ` holds the API keys that entries name.
    """
    match model:
        case LlamaCppModel():
            return _llamacpp(model)
        case OpenAIModel():
            return _openai(model, environ)
        case SGLangModel():
            return _sglang(model, environ)


def _llamacpp(model: LlamaCppModel) -> Engine:
    from workers.engines.llamacpp_engine import LlamaCppEngine

    for path in filter(None, (model.path, model.chat_template)):
        if not path.is_file():
            raise ConfigurationMistake(
                f"{model.origin}: there is no file {path}. Download it, or correct it."
            )
    return LlamaCppEngine(model)


def _openai(model: OpenAIModel, environ: Mapping[str, str]) -> Engine:
    from workers.engines.openai_engine import OpenAIEngine

    return OpenAIEngine.from_catalogue(model, api_key=_api_key(model, environ))


def _sglang(model: SGLangModel, environ: Mapping[str, str]) -> Engine:
    from workers.engines.sglang_engine import SGLangEngine

    if model.url is None and not model.python.is_file():
        raise ConfigurationMistake(
            f"{model.origin}: there is no Python at {model.python}. Run `make sglang-env`, or set `python`."
        )
    return SGLangEngine(model, api_key=_api_key(model, environ))


def _api_key(model: OpenAIModel | SGLangModel, environ: Mapping[str, str]) -> str | None:
    if model.api_key_env is None:
        return None
    if not environ.get(model.api_key_env):
        raise ConfigurationMistake(
            f"{model.origin}: the environment variable {model.api_key_env} is not set. Set it to the key."
        )
    return environ[model.api_key_env]
