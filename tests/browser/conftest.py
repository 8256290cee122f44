"""A real headless Chromium that signs in to the console, and remembers all that it said and asked for."""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import (
    Browser,
    BrowserContext,
    Page,
    Request,
    Response,
    async_playwright,
    expect,
)

from tests.embedded import Up, up

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
KEY = "sk-key_operator-0123456789abcdef0123"
# In the order of docs/how-to/console.md, "From top to bottom".
PARTS = (
    *("#attention", "#totals", "#models", "#workers", "#jobs-title", "#dead-title"),
    *("#try-title", "#tenants-title", "#batches-title", "#levels-title"),
)
_NUMBER = """(parts) => parts.forEach((part, index) => {
    const place = document.querySelector(part).getBoundingClientRect();
    const mark = document.createElement("div");
    mark.dataset.number = mark.textContent = String(index + 1);
    Object.assign(mark.style, {
        position: "absolute", zIndex: 4, width: "18px", height: "18px", borderRadius: "50%",
        left: `${Math.max(1, place.left + scrollX - 19)}px`, top: `${place.top + scrollY - 2}px`,
        background: "#b3261e", color: "#fff", font: "700 10.5px/18px sans-serif", textAlign: "center",
    });
    document.body.append(mark);
})"""
_LOOK = 20_000  # milliseconds that a page may take to show what it should


@dataclass
class Console:
    """A page at the console, and what Chromium noted meanwhile."""

    page: Page
    platform: Up
    troubles: list[str] = field(default_factory=list)
    origins: set[str] = field(default_factory=set)

    async def open(self) -> None:
        await self.page.goto(f"{self.platform.url}/console")

    async def sign_in(self) -> None:
        await self.open()
        await self.page.get_by_label("API key").fill(self.platform.key)
        await self.page.get_by_role("button", name="Sign in").click()
        await self.page.get_by_text("Live", exact=True).wait_for()

    async def take_picture(self, name: str, *, whole: bool = False) -> None:
        """Into docs/images where TEST_PICTURES is set; else the tree stays as it is."""
        if os.environ.get("TEST_PICTURES"):
            await self.page.screenshot(path=IMAGES / f"{name}.png", full_page=whole, animations="disabled")

    async def take_numbered_picture(self, name: str) -> None:
        """The whole page with the numbers of docs/how-to/console.md at its parts."""
        await self.page.evaluate(_NUMBER, list(PARTS))
        await self.take_picture(name, whole=True)
        await self.page.evaluate("document.querySelectorAll('[data-number]').forEach((one) => one.remove())")


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    """One a test: Playwright belongs to the test's event loop."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("Chromium is not installed (Debian: chromium)")
    async with async_playwright() as playwright:
        # Its sandbox needs rights that a container's root has not.
        options = ["--no-sandbox"] if os.getuid() == 0 else []
        browser = await playwright.chromium.launch(executable_path=program, args=options)
        yield browser
        await browser.close()


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("console")
    with up(
        folder,
        PENSTOCK_BOOTSTRAP_KEY=KEY,
        PENSTOCK_CONSOLE__FLOWER_URL="http://flower.test:5555",
        PENSTOCK_WORKER__EVENT_FLUSH="1ms",  # the bundled model answers within the usual 15 ms
        # Level 1 stays while it is looked at, and is gone soon after the pressure.
        PENSTOCK_OVERLOAD__DWELL="10m",
        # Only the number of jobs that wait raises the level here: the wait depends on the machine.
        PENSTOCK_OVERLOAD__PREDICTED_WAIT="1h",
        PENSTOCK_OVERLOAD__CALM="1s",
        PENSTOCK_OVERLOAD__LONGEST_CALM="1s",
    ) as running:
        yield running


@pytest.fixture
async def api(platform: Up) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {platform.key}"}
    async with httpx.AsyncClient(base_url=platform.url, headers=headers, timeout=60) as client:
        yield client


async def watch(context: BrowserContext, platform: Up) -> Console:
    console = Console(await context.new_page(), platform)
    page = console.page
    page.set_default_timeout(_LOOK)
    expect.set_options(timeout=_LOOK)

    def note_origin(request: Request) -> None:
        parts = urlsplit(request.url)
        console.origins.add(f"{parts.scheme}://{parts.netloc}")

    def note_failure(response: Response) -> None:
        if response.status >= httpx.codes.BAD_REQUEST:
            console.troubles.append(f"{response.status} {response.url}")

    page.on("request", note_origin)
    page.on("response", note_failure)
    page.on("pageerror", lambda error: console.troubles.append(str(error)))
    page.on("console", lambda said: console.troubles.append(said.text) if said.type == "error" else None)
    return console


@pytest.fixture(params=["light"])
async def console(request: pytest.FixtureRequest, chromium: Browser, platform: Up) -> AsyncIterator[Console]:
    """Fails the test when the page had an error of its own, or asked anybody else."""
    context = await chromium.new_context(
        color_scheme=request.param, viewport={"width": 1360, "height": 1000}, reduced_motion="reduce"
    )
    found = await watch(context, platform)
    yield found
    await context.close()
    assert found.troubles == []
    assert found.origins <= {platform.url}


async def serious(page: Page) -> list[str]:
    """What axe calls serious or critical: rule and element."""
    found = (await Axe().run(page)).response["violations"]
    return [
        f"{one['id']}: {node['html'][:200]}"
        for one in found
        if one["impact"] in {"serious", "critical"}
        for node in one["nodes"]
    ]
