"""Fixtures of every test."""

pytest_plugins = ["tests.services", "tests.platform_fixtures"]
