from pathlib import Path

import pytest

from core.errors import ConfigurationMistake
from queues.templates import find_templates, match

GOOD = """
[[template]]
name = "refund"
phrases = ["how long does a refund take", "退款要多久"]
answer = "Order {order}: five days."
fields = ["order"]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "templates.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("question", "is_met"),
    [
        ("How long does a refund take?", True),
        ("Hello, how long does a REFUND take please", True),
        ("请问退款要多久", True),
        ("How long does a refunded order take", False),
        ("how long does a refund take and why is the sky blue and where do I live", False),
        ("x" * 500 + " how long does a refund take", False),
    ],
)
def test_a_question_meets_the_phrases_of_its_intent(tmp_path: Path, question: str, is_met: bool) -> None:
    templates = find_templates(written(tmp_path, GOOD))

    assert (match(templates, question) is not None) is is_met


PATTERN = """
[[template]]
name = "hours"
patterns = ['(when|what time) (do|are) you open.*', '.*几点(开门|营业)']
answer = "From nine to five."
"""


@pytest.mark.parametrize(
    ("question", "is_met"),
    [
        ("When do you OPEN?", True),
        ("What time are you open on Mondays?", True),
        ("你们几点营业", True),
        ("Tell me when do you open", False),
        ("When do you close?", False),
    ],
)
def test_an_expression_must_match_the_whole_question(tmp_path: Path, question: str, is_met: bool) -> None:
    templates = find_templates(written(tmp_path, PATTERN))

    assert (match(templates, question) is not None) is is_met


def test_an_expression_that_ruins_backtracking_engines_is_linear(tmp_path: Path) -> None:
    [template] = find_templates(
        written(tmp_path, PATTERN.replace("(when|what time) (do|are) you open.*", "(a+)+b"))
    )

    assert not template.matches("a" * 400)


def test_only_listed_fields_are_filled_and_a_missing_one_is_no_answer(tmp_path: Path) -> None:
    [template] = find_templates(written(tmp_path, GOOD))

    assert template.fill({"order": "7", "secret": "x"}) == "Order 7: five days."
    assert template.fill({}) is None


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (GOOD.replace('fields = ["order"]', ""), r":2: 'answer': \{order\} is not among"),
        (GOOD.replace("phrases", "phrase"), ":2: 'phrase': Extra inputs"),
        ("\n[[template]]\nname = ", ":3: not TOML"),
        ("[template]\n", ":1: templates are"),
        (PATTERN.replace(".*几点", "(?=x)几点"), ":2: 'patterns': .* is no RE2 expression"),
        (PATTERN.replace("patterns = [", "fields = ["), ":2: 'phrases': Give phrases or patterns"),
    ],
)
def test_a_mistake_is_named_with_file_and_line(tmp_path: Path, text: str, place: str) -> None:
    with pytest.raises(ConfigurationMistake, match=rf"templates\.toml{place}"):
        find_templates(written(tmp_path, text))


def test_no_file_is_no_templates(tmp_path: Path) -> None:
    assert find_templates(tmp_path / "absent.toml") == ()
