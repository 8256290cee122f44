"""A local receiver of webhooks: verifies as a receiver should, and prints what came."""

import http
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from standardwebhooks import Webhook, WebhookVerificationError
from standardwebhooks.webhooks import EmptyWebhookSecretError

from cli.console import emit, say
from core.errors import ConfigurationMistake

_LARGEST: Final = 1_048_576  # bytes


class Verifier:
    """Takes what one of the secrets has signed."""

    def __init__(self, secrets: Sequence[str]) -> None:
        try:
            self._webhooks = [Webhook(secret) for secret in secrets]
        except (ValueError, EmptyWebhookSecretError) as error:
            raise ConfigurationMistake("the secret is not of the form whsec_… in base64") from error

    def verify(self, body: bytes, headers: Mapping[str, str]) -> Any:
        """The event. Raises `WebhookVerificationError`."""
        for webhook in self._webhooks[:-1]:
            with suppress(WebhookVerificationError):
                return webhook.verify(body, dict(headers))
        return self._webhooks[-1].verify(body, dict(headers))


def make_server(secrets: Sequence[str], *, host: str, port: int, as_json: bool) -> ThreadingHTTPServer:
    verifier = Verifier(secrets)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(min(length, _LARGEST))
            try:
                event = verifier.verify(body, dict(self.headers.items()))
            except (WebhookVerificationError, ValueError) as error:
                say(f"refused: {error}")
                self._answer(http.HTTPStatus.BAD_REQUEST)
                return
            _show(event, as_json=as_json)
            self._answer(http.HTTPStatus.NO_CONTENT)

        def _answer(self, status: http.HTTPStatus) -> None:
            self.send_response(status)
            if status is not http.HTTPStatus.NO_CONTENT:
                self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    return ThreadingHTTPServer((host, port), Handler)


def serve(secrets: Sequence[str], *, host: str, port: int, as_json: bool) -> None:
    """Until Ctrl-C."""
    try:
        server = make_server(secrets, host=host, port=port, as_json=as_json)
    except OSError as error:
        raise ConfigurationMistake(f"cannot listen on {host}:{port} ({error.strerror})") from error
    with server, suppress(KeyboardInterrupt):
        say(f"Listening at http://{host}:{server.server_address[1]}/")
        server.serve_forever()


def _show(event: Any, *, as_json: bool) -> None:
    if as_json:
        emit(event)
        return
    data = event.get("data", {})
    say(f"verified {event.get('type')} {event.get('id')}: {data.get('id', '')} {data.get('status', '')}")
