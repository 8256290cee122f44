"""Publisher confirms of one channel: what became of each message of the window in flight."""

from typing import Any


class Confirms:
    """Tags count the channel's publishes from one; a window must be settled before the next begins."""

    def __init__(self) -> None:
        self.confirmed: set[str] = set()
        self.waiting: dict[int, str] = {}
        self._returned: set[str] = set()
        self._tag = 0

    def attach(self, channel: Any) -> None:
        """Switch the channel to confirm mode and listen to it."""
        channel.events["basic_ack"].add(self.acked)
        channel.events["basic_nack"].add(self.nacked)
        channel.events["basic_return"].add(self.returned)
        channel.confirm_select()

    def begin(self) -> None:
        self.confirmed = set()
        self._returned = set()

    def published(self, identity: str) -> None:
        self._tag += 1
        self.waiting[self._tag] = identity

    def acked(self, tag: int, multiple: bool) -> None:  # noqa: FBT001
        # An unroutable message is returned first and acknowledged afterwards.
        self.confirmed.update(set(self._settle(tag, multiple=multiple)) - self._returned)

    def nacked(self, tag: int, multiple: bool) -> None:  # noqa: FBT001
        self._settle(tag, multiple=multiple)

    def returned(self, _error: Exception, _exchange: str, _routing_key: str, message: Any) -> None:
        self._returned.add(message.properties["correlation_id"])

    def _settle(self, tag: int, *, multiple: bool) -> list[str]:
        if not multiple:
            return [self.waiting.pop(tag)] if tag in self.waiting else []
        tags = [waiting for waiting in self.waiting if waiting <= tag]
        return [self.waiting.pop(waiting) for waiting in tags]
