"""Which engine runs an entry of the catalogue."""

from collections.abc import Mapping

from core.errors import ConfigurationMistake
from models.catalogue import AnyModel, LlamaCppModel, OpenAIModel
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

    if model.api_key_env is not None and not environ.get(model.api_key_env):
        raise ConfigurationMistake(
            f"{model.origin}: the environment variable {model.api_key_env} is not set. Set it to the key."
        )
    key = environ[model.api_key_env] if model.api_key_env else None
    return OpenAIEngine.from_catalogue(model, api_key=key)
