"""Unmodified clients of OpenAI's API against a running platform, embedded and on the real services."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from tests.embedded import ROOT, environment, up
from tests.platform import running_platform
from tests.services import Services

pytestmark = pytest.mark.timeout(400)

SUITES: Final = ROOT / "tests" / "clients"
PYTHON: Final = ROOT / ".venv-clients" / "bin" / "python"


@dataclass(frozen=True, slots=True)
class Address:
    url: str
    key: str
    admin_key: str


@pytest.fixture(scope="module")
def other_clients() -> None:
    """`make clients-env`: nothing is done where it is there already."""
    done = subprocess.run(["make", "clients-env"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"make clients-env: {done.stderr[-2000:]}")


@pytest.fixture(scope="module", params=["embedded", pytest.param("services", marks=pytest.mark.services)])
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """Everybody gets what was asked: on a busy machine, the same question twice is answered as similar."""
    folder = tmp_path_factory.mktemp("platform")
    if request.param == "embedded":
        with up(folder, PENSTOCK_OVERLOAD__ENABLED="false") as running:
            yield Address(running.url, running.key, admin_key(folder))
        return
    services: Services = request.getfixturevalue("services")
    with running_platform(services, folder, OVERLOAD__ENABLED="false") as platform:
        keys = platform.key("official"), platform.key("official-admin", "--scope", "admin")
        yield Address(platform.url, *keys)


def admin_key(folder: Path) -> str:
    """A key without the scope `jobs`, in the embedded platform's own database."""
    database = f"sqlite+aiosqlite:///{folder / 'penstock.db'}"
    for arguments in (["tenants", "create", "admin"], ["keys", "create", "admin", "--scope", "admin"]):
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            cwd=ROOT,
            env=environment(PENSTOCK_DATABASE__URL=database),
            capture_output=True,
            text=True,
            check=True,
        )
    return done.stdout.strip().splitlines()[-1].strip()


def run_suite(name: str, python: str, address: Address, **variables: str) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    done = subprocess.run(
        [python, "-m", "pytest", "-c", "pytest.ini", f"{name}_suite.py"],
        cwd=SUITES,
        env=environment(
            SUITE_URL=address.url,
            SUITE_KEY=address.key,
            SUITE_ADMIN_KEY=address.admin_key,
            SUITE_LATER=later.isoformat(),
            LITELLM_LOCAL_MODEL_COST_MAP="true",
            **variables,
        ),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout


def test_the_openai_client(address: Address) -> None:
    run_suite("openai", sys.executable, address, SUITE_MAJOR="3")


def test_the_openai_client_of_the_major_version_before(address: Address, other_clients: None) -> None:
    run_suite("openai", str(PYTHON), address, SUITE_MAJOR="2")


def test_the_litellm_sdk(address: Address, other_clients: None) -> None:
    run_suite("litellm", str(PYTHON), address)
