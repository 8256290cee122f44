"""Fixtures of every test."""

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.services", "tests.platform_fixtures"]

# No test asserts a time, and a slow machine is no finding.
settings.register_profile("penstock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("penstock")
