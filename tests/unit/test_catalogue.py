"""The catalogue of models: what it accepts, and what its refusals say."""

from pathlib import Path

import pytest

from core.errors import ConfigurationMistake, UnknownModel
from models.catalogue import Catalogue, LlamaCppModel, OpenAIModel, SGLangModel, load_catalogue

TWO = """\
[[model]]
name = "default"
engine = "llamacpp"
path = "bundled:support-tiny"

[[model]]
name = "big"
engine = "openai"
url = "http://gpu-1:8000"
api_key_env = "BIG_KEY"
tokenizer = "big/tokenizer.json"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "models.toml"
    path.write_text(text)
    return path


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ConfigurationMistake) as caught:
        load_catalogue(written(folder, text))
    return str(caught.value)


def test_entries_keep_the_order_and_the_types_of_the_file(tmp_path: Path) -> None:
    catalogue = load_catalogue(written(tmp_path, TWO))

    assert catalogue.names == ("default", "big")
    assert isinstance(catalogue.get("default"), LlamaCppModel)
    assert isinstance(catalogue.get("big"), OpenAIModel)


def test_the_bundled_model_and_its_tokenizer_exist(tmp_path: Path) -> None:
    model = load_catalogue(written(tmp_path, TWO)).get("default")

    assert isinstance(model, LlamaCppModel)
    assert model.path.is_file()
    assert model.tokenizer is not None
    assert model.tokenizer.is_file()


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    model = load_catalogue(written(tmp_path, TWO)).get("big")

    assert model.tokenizer == tmp_path / "big" / "tokenizer.json"


def test_a_model_remembers_its_file_and_line(tmp_path: Path) -> None:
    path = written(tmp_path, TWO)

    assert load_catalogue(path).get("big").origin == f"{path}:6"


def test_without_a_file_the_bundled_model_is_served() -> None:
    assert Catalogue.bundled().get(None).name == "default"


def test_the_name_may_be_left_out_only_when_one_model_is_served(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="default, big") as caught:
        load_catalogue(written(tmp_path, TWO)).get(None)

    assert caught.value.field == "model"


def test_an_unknown_name_lists_those_served(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="'gpt'; served: default, big"):
        load_catalogue(written(tmp_path, TWO)).get("gpt")


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("[[model]]\nname = \n", 2, "not TOML"),
        ("", 1, "[[model]]"),
        ("model = []\n", 1, "[[model]]"),
        ('\ntitle = "x"\n' + TWO, 2, "unknown 'title'"),
        (TWO + 'api_kye_env = "K"\n', 12, "'api_kye_env': unknown key"),
        (TWO + "slots = 0\n", 12, "'slots'"),
        (TWO + 'slots = "many"\n', 12, "'slots'"),
        (TWO + 'origin = "x"\n', 12, "'origin': unknown key"),
        (TWO.replace('"openai"', '"opneai"'), 8, "llamacpp"),
        (TWO.replace('engine = "openai"\n', ""), 6, "missing"),
        (TWO.replace('url = "http://gpu-1:8000"\n', ""), 6, "'url': required and missing"),
        (TWO.replace('"http://gpu-1:8000"', '"gpu-1"'), 9, "'url'"),
        (TWO.replace('"big"', '"default"'), 6, "'default' is taken by"),
        (TWO.replace('"big"', '"a b"'), 7, "'name'"),
    ],
)
def test_a_mistake_is_refused_with_file_line_and_remedy(
    tmp_path: Path, text: str, line: int, says: str
) -> None:
    sentence = refusal(tmp_path, text)

    assert sentence.startswith(f"{tmp_path / 'models.toml'}:{line}: ")
    assert says in sentence


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationMistake, match=r"nowhere\.toml: cannot be read"):
        load_catalogue(tmp_path / "nowhere.toml")


def test_a_secret_in_a_bad_value_is_not_repeated(tmp_path: Path) -> None:
    assert "hunter2" not in refusal(tmp_path, TWO.replace("gpu-1:8000", "u:hunter2@:x"))


def test_an_sglang_server_to_attach_to_needs_no_path(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text('[[model]]\nname = "far"\nengine = "sglang"\nurl = "http://gpu-1:30000"\n')

    found = load_catalogue(path).get("far")

    assert isinstance(found, SGLangModel)
    assert (str(found.url), found.path) == ("http://gpu-1:30000/", "")
