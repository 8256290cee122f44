import pytest

from core.settings import ComplexitySettings
from models.limits import Bounds, Complexity, Limits
from models.service_class import ServiceClass
from queues.limits.complexity import Weight, measured, weigh

LOW, MEDIUM, HIGH = Complexity
DEFAULTS = ComplexitySettings()


def weight(
    prompt: int,
    answer: int,
    *,
    claimed: Complexity | None = None,
    ceiling: Complexity = HIGH,
    settings: ComplexitySettings = DEFAULTS,
    wanted: ServiceClass = ServiceClass.PREMIUM,
) -> Weight:
    return weigh(
        settings,
        claimed=claimed,
        prompt_tokens=prompt,
        max_tokens=answer,
        service_class=wanted,
        ceiling=ceiling,
    )


@pytest.mark.parametrize(
    ("prompt", "answer", "expected"),
    [
        (2048, 513, MEDIUM),
        (2049, 512, MEDIUM),
        (2049, 513, HIGH),
        (10, 10, LOW),
        (513, 10, MEDIUM),
        (10, 257, MEDIUM),
        (9000, 16, MEDIUM),
    ],
)
def test_the_tokens_say_how_heavy_a_request_is(prompt: int, answer: int, expected: Complexity) -> None:
    assert measured(DEFAULTS, prompt_tokens=prompt, max_tokens=answer) is expected


def test_a_high_request_counts_double() -> None:
    assert weight(3000, 600) == Weight(HIGH, 7200, ServiceClass.PREMIUM)
    assert weight(3000, 500).cost == 3500


def test_a_claim_adds_weight_and_never_takes_any() -> None:
    assert weight(10, 10, claimed=HIGH) == Weight(HIGH, 40, ServiceClass.PREMIUM)
    assert weight(3000, 600, claimed=LOW).applied is HIGH


def test_a_claim_is_cut_to_what_the_key_may() -> None:
    assert weight(10, 10, claimed=HIGH, ceiling=MEDIUM) == Weight(MEDIUM, 20, ServiceClass.PREMIUM)


def test_tokens_beyond_the_ceiling_keep_their_weight_and_lose_their_class() -> None:
    assert weight(3000, 600, ceiling=MEDIUM) == Weight(MEDIUM, 7200, ServiceClass.BULK)


def test_a_setting_may_keep_high_requests_out_of_premium() -> None:
    settings = ComplexitySettings(high_class="standard")

    assert weight(3000, 600, settings=settings).service_class is ServiceClass.STANDARD
    assert weight(3000, 600, settings=settings, wanted=ServiceClass.BULK).service_class is ServiceClass.BULK
    assert weight(30, 60, settings=settings).service_class is ServiceClass.PREMIUM


def test_the_lower_ceiling_of_key_and_tenant_counts() -> None:
    assert Bounds(Limits(max_complexity=MEDIUM), Limits(max_complexity=LOW)).max_complexity is LOW
    assert Bounds(Limits(max_complexity=MEDIUM)).max_complexity is MEDIUM
    assert Bounds().max_complexity is HIGH


def test_zero_lifts_a_default_and_none_takes_it() -> None:
    default = Limits(requests_per_minute=10, tokens_per_day=99)

    assert Limits(requests_per_minute=0).over(default) == Limits(requests_per_minute=0, tokens_per_day=99)
    assert Limits.from_document({**default.document(), "from_the_future": 1}) == default
