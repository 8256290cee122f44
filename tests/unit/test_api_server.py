"""What the API's server is told about its connections."""

from datetime import timedelta

from fastapi import FastAPI

from api.server import make_server
from core.settings import ApiSettings, Settings


def test_idle_connections_and_the_drain_are_the_settings() -> None:
    api = ApiSettings(
        keep_alive=timedelta(seconds=7), drain=timedelta(seconds=3), trusted_proxies=("10.0.0.0/8",)
    )

    config = make_server(Settings(api=api), FastAPI()).config

    assert config.timeout_keep_alive == 7
    assert config.timeout_graceful_shutdown == 3
    assert config.forwarded_allow_ips == ["10.0.0.0/8"]
