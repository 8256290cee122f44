"""Acknowledgements of one burst in one write; on the hub thread.

One by one each is a method of py-amqp and a call of the kernel.
"""

from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Final

from amqp.exceptions import AMQPError

from core.logs import get_logger
from queues.frames import Frames

logger = get_logger(__name__)

MOST: Final = 100_000  # tags that are remembered of a channel


@dataclass(slots=True)
class Tags:
    """The delivery tags of one channel that are settled: all up to `low`, and some beyond it.

    A job of hours, or a message that somebody else acknowledged, may hold `low` for ever.
    """

    low: int = 0
    beyond: set[int] = field(default_factory=set)

    def settle(self, tags: Collection[int]) -> None:
        if len(self.beyond) >= MOST and self.low + 1 not in tags:
            return  # Each is told alone, until what holds `low` is settled.
        self.beyond.update(tags)
        while self.low + 1 in self.beyond:
            self.low += 1
            self.beyond.discard(self.low)

    def acks(self, tags: Collection[int]) -> list[tuple[int, bool]]:
        """How to tell the broker of these, just settled: one tag stands for all that `low` covers."""
        covered = [tag for tag in tags if tag <= self.low]
        single = [(tag, False) for tag in tags if tag > self.low]
        # Not `low` itself: that message may have been rejected, and the broker knows its tag no more.
        return [(max(covered), len(covered) > 1), *single] if covered else single


class Acknowledgements:
    """`soon` runs a function on the hub thread after what runs there now."""

    def __init__(self, soon: Callable[[Callable[[], None]], object]) -> None:
        self._soon = soon
        self._waiting: list[Any] = []
        # A channel's tags go with it: a new connection has new channels.
        self._channels: dict[Any, tuple[Tags, Frames]] = {}

    def ack(self, message: Any, _logger: object = None, _errors: object = None) -> None:
        """In place of `message.ack_log_error`."""
        if not self._waiting:
            self._soon(self.write)
        self._waiting.append(message)

    def reject(self, message: Any, logger: object, errors: object, requeue: bool = False) -> None:  # noqa: FBT001, FBT002
        """In place of `message.reject_log_error`."""
        message.reject_log_error(logger, errors, requeue)
        tags, _ = self._of(message.channel)
        tags.settle([message.delivery_tag])

    def forget(self) -> None:
        """The connection is lost, and its tags with it; what was to run soon may be, too."""
        self._waiting.clear()
        self._channels.clear()

    def write(self) -> None:
        messages, self._waiting = self._waiting, []
        by_channel: defaultdict[Any, list[Any]] = defaultdict(list)
        for message in messages:
            if not message.acknowledged and message.channel.connection is not None:
                by_channel[message.channel].append(message)
        for channel, ours in by_channel.items():
            self._write(channel, ours)

    def _write(self, channel: Any, messages: list[Any]) -> None:
        settled = [message.delivery_tag for message in messages]
        tags, frames = self._of(channel)
        tags.settle(settled)
        for tag, multiple in tags.acks(settled):
            frames.ack(tag, multiple=multiple)
        try:
            channel.connection.transport.write(frames.take())
        except (OSError, AMQPError, AttributeError) as error:  # the last while the connection goes down
            # The broker delivers them again, and whoever gets them finds their jobs done.
            logger.warning("acknowledgements_lost", messages=len(messages), reason=repr(error))
            return
        for message in messages:
            message._state = "ACK"  # noqa: SLF001 - as kombu's own `ack` does

    def _of(self, channel: Any) -> tuple[Tags, Frames]:
        if channel not in self._channels:
            alive = {known: its for known, its in self._channels.items() if known.connection is not None}
            self._channels = alive
            frames = Frames(channel.channel_id, largest=channel.connection.frame_max)
            self._channels[channel] = (Tags(), frames)
        return self._channels[channel]
