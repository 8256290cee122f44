"""When a webhook is tried again. Pure: the clock and the dice come in as arguments."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

_LONGEST_REQUEST: Final = timedelta(hours=24)  # of a receiver that asks to be left alone
_JITTER: Final = 0.1


def again_in(
    tries: int,
    *,
    schedule: Sequence[timedelta],
    left: timedelta,
    asked: timedelta | None,
    dice: float,
) -> timedelta | None:
    """The pause after the failure number `tries`; None when it was the last.

    `left` is the time until giving up: the last attempt is made then at the latest. `asked` is the
    receiver's Retry-After, which counts in place of the schedule's pause. `dice` is from 0 to 1; a
    schedule's pause moves by a tenth both ways, and what was asked for only gets longer.
    """
    if tries > len(schedule) or left <= timedelta(0):
        return None
    if asked is not None:
        return min(asked * (1 + _JITTER * dice), left)
    return min(schedule[tries - 1] * (1 - _JITTER + 2 * _JITTER * dice), left)


def retry_after(header: str | None, now: datetime) -> timedelta | None:
    """Seconds or an HTTP date, at most a day; None where it is absent, past or nonsense."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        asked = timedelta(seconds=min(int(text[:9]), 10**8))
    else:
        try:
            at = parsedate_to_datetime(text)
        except (ValueError, TypeError):
            return None
        asked = (at if at.tzinfo else at.replace(tzinfo=UTC)) - now
    return min(asked, _LONGEST_REQUEST) if asked > timedelta(0) else None
