"""Settings: read once, refused when misspelt."""

from datetime import timedelta

import pytest

from core.errors import ConfigurationMistake
from core.settings import load_settings, refuse_unknown_names, setting_names


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("PENSTOCK_BROKR__URL", "PENSTOCK_BROKER__URL"),
        ("PENSTOCK_WORKER__LEASES", "PENSTOCK_WORKER__LEASE"),
        ("PENSTOCK_ORDER__WEIGHTS__BULKY", "PENSTOCK_ORDER__WEIGHTS__BULK"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_nearest_known_one(name: str, nearest: str) -> None:
    with pytest.raises(ConfigurationMistake, match=f"unknown setting {name}; did you mean {nearest}"):
        refuse_unknown_names({name: "x"})


@pytest.mark.parametrize("name", ["PENSTOCK_NONSENSE", "PENSTOCK_XYZ__QQQ", "PENSTOCK_", "PENSTOCK_HTTP2"])
def test_a_name_like_no_other_gets_no_absurd_suggestion(name: str) -> None:
    with pytest.raises(ConfigurationMistake, match=f"unknown setting {name}; docs/") as error:
        refuse_unknown_names({name: "x"})

    assert "did you mean" not in str(error.value)


def test_every_name_that_settings_have_is_known() -> None:
    refuse_unknown_names(dict.fromkeys(setting_names(), "x"))


@pytest.mark.parametrize(
    ("text", "value"),
    [("250ms", 0.25), ("3s", 3), ("15m", 900), ("24h", 86400), ("7d", 604800), ("PT5S", 5), ("1.5s", 1.5)],
)
def test_a_duration_carries_its_unit(monkeypatch: pytest.MonkeyPatch, text: str, value: float) -> None:
    monkeypatch.setenv("PENSTOCK_WORKER__LEASE", text)
    assert load_settings().worker.lease == timedelta(seconds=value)


def test_one_value_of_a_group_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_ORDER__WEIGHTS__BULK", "2")
    weights = load_settings().order.weights
    assert (weights.premium, weights.standard, weights.bulk) == (8, 3, 2)


def test_a_wrong_value_is_named_as_the_environment_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_API__PORT", "99999")
    with pytest.raises(ConfigurationMistake, match="PENSTOCK_API__PORT"):
        load_settings()


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_BROKER__URL", "amqp://user:hunter2@localhost//")
    assert "hunter2" not in repr(load_settings())


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings({}).api.port = 1  # type: ignore[misc]
