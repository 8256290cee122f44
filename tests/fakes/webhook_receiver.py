"""A receiver of webhooks on loopback, in threads of its own: keeps what came, answers as it is told."""

import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import orjson


@dataclass(frozen=True, slots=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes
    client: tuple[str, int]

    @property
    def event(self) -> Any:
        return orjson.loads(self.body)

    @property
    def event_id(self) -> str:
        return self.headers["webhook-id"]


@dataclass(frozen=True, slots=True)
class Answer:
    """`hold`: not before this event is set. `reset`: no answer, the connection breaks."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"ok"
    hold: threading.Event | None = None
    reset: bool = False


OK = Answer()
Rule = Callable[[Received, int], Answer]


class WebhookReceiver:
    """`rule` sees each call and its number, from 1; without one everything is taken."""

    def __init__(self, rule: Rule = lambda *_: OK) -> None:
        self.rule = rule
        self.received: list[Received] = []
        self.connections = 0
        self._changed = threading.Condition()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait(self, count: int, within: float = 30.0) -> list[Received]:
        """What came, once there are so many calls."""
        return self.wait_until(lambda received: len(received) >= count, within)

    def wait_until(self, done: Callable[[list[Received]], bool], within: float = 30.0) -> list[Received]:
        with self._changed:
            if not self._changed.wait_for(lambda: done(self.received), within):
                raise TimeoutError(f"{len(self.received)} calls came within {within:.0f} s")
            return list(self.received)

    def take(self, call: Received) -> Answer:
        with self._changed:
            self.received.append(call)
            number = len(self.received)
            self._changed.notify_all()
        return self.rule(call, number)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                receiver.connections += 1

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = receiver.take(Received(self.path, headers, body, self.client_address))
                if answer.hold is not None:
                    answer.hold.wait(60)
                if answer.reset:
                    self._reset()
                else:
                    self._answer(answer)

            do_GET = do_POST  # noqa: N815 - the server's interface

            def _answer(self, answer: Answer) -> None:
                try:
                    self.send_response(answer.status)
                    self.send_header("Content-Length", str(len(answer.body)))
                    for name, value in answer.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(answer.body)
                except OSError:  # the caller has gone
                    self.close_connection = True

            def _reset(self) -> None:
                linger = struct.pack("ii", 1, 0)  # close with RST
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.close_connection = True

            def log_message(self, *_: object) -> None: ...

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def shutdown_request(self, request: Any) -> None:
        self.close_request(request)  # at once: a FIN before it would spare the caller the reset

    def handle_error(self, *_: object) -> None: ...  # a caller that went away is no news
