"""An operator at the console: a real browser on the running platform."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, Page, expect

from core.settings import DatabaseSettings, Settings
from models.dialect import open_database
from queues.upkeep import Upkeep
from tests.browser.conftest import KEY, Console, serious, watch
from tests.contracts.stores import claim
from tests.embedded import Up, lonely_api, up
from tests.fakes.fake_publisher import FakePublisher
from tests.local_servers import free_port

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]
MODEL = "/v1/admin/models/default"
COUNT_PIECES = """window.pieces = 0;
new MutationObserver((changes) => {
    const isPiece = (one) => one.target.matches?.(".answer") && one.addedNodes.length;
    window.pieces += changes.filter(isPiece).length;
}).observe(document, { childList: true, subtree: true });"""


@asynccontextmanager
async def paused(api: httpx.AsyncClient) -> AsyncIterator[None]:
    """What is submitted meanwhile waits."""
    (await api.post(f"{MODEL}/pause")).raise_for_status()
    try:
        yield
    finally:
        (await api.post(f"{MODEL}/resume")).raise_for_status()


async def submit(api: httpx.AsyncClient, **more: Any) -> str:
    answer = await api.post("/v1/jobs", json={"prompt": "where is my order", "max_tokens": 24} | more)
    job_id: str = answer.raise_for_status().json()["id"]
    return job_id


async def submit_long(api: httpx.AsyncClient) -> str:
    """A job that has to write a thousand numbers."""
    numbers = {"type": "array", "minItems": 1000, "items": {"type": "integer"}}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": numbers}}
    return await submit(api, max_tokens=1900, response_format=wanted)


async def cancel(api: httpx.AsyncClient, job_ids: list[str]) -> None:
    for job_id in job_ids:
        (await api.post(f"/v1/admin/jobs/{job_id}/cancel")).raise_for_status()


def section(page: Page, name: str) -> Any:
    return page.get_by_role("region", name=name, exact=True).first


def shown(job_id: str) -> re.Pattern[str]:
    return re.compile(re.escape(job_id[-6:]))


async def test_a_wrong_key_is_told_so_and_the_right_one_comes_in(console: Console) -> None:
    await console.open()
    page = console.page
    await page.get_by_label("API key").fill("sk-key_nobody-0123456789abcdef0123")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("unknown, expired or revoked")
    await console.take_picture("console-sign-in")
    console.troubles.clear()  # the browser itself notes a 401

    await page.get_by_label("API key").fill(console.platform.key)
    await page.keyboard.press("Enter")

    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    await expect(page.get_by_role("link", name="Flower")).to_have_attribute("href", "http://flower.test:5555")
    assert await page.evaluate("document.cookie") == ""


async def test_a_prompt_is_answered_before_the_eyes(console: Console, api: httpx.AsyncClient) -> None:
    # Beside them the engine takes its time; alone it writes the whole answer within one flush of events.
    others = [await submit_long(api) for _ in range(6)]
    await console.page.add_init_script(COUNT_PIECES)
    await console.sign_in()
    page = console.page
    await page.get_by_role("textbox", name="Prompt").fill("how long does a refund take")
    await page.get_by_role("button", name="Send").click()

    await expect(page.locator(".try [role=status]")).to_contain_text("completed")
    await expect(page.locator(".answer")).to_contain_text("refund")
    # Pieces as they came, and the whole answer at the end.
    assert await page.evaluate("window.pieces") > 1
    await cancel(api, others)
    await expect(section(page, "Jobs").get_by_role("row").nth(1)).to_contain_text("completed")


async def test_a_waiting_job_says_why_and_is_cancelled_from_the_box(
    console: Console, api: httpx.AsyncClient
) -> None:
    await console.sign_in()
    page = console.page
    async with paused(api):
        await page.get_by_role("textbox", name="Prompt").fill("where is my order")
        await page.get_by_role("button", name="Send").click()
        await page.get_by_role("button", name="Timeline").click()
        await expect(page.get_by_role("dialog")).to_contain_text("default is paused, so nothing of it begins")
        await console.take_picture("console-job")
        assert await serious(page) == []
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("button", name="Timeline")).to_be_focused()

        await page.get_by_role("button", name="Cancel", exact=True).click()

        await expect(page.locator(".try [role=status]")).to_contain_text("cancelled")


async def test_a_running_job_is_found_and_cancelled_with_the_keyboard(
    console: Console, api: httpx.AsyncClient
) -> None:
    await console.sign_in()
    page = console.page
    # Sixteen of them keep the engine busy for seconds: one alone is over between two frames.
    job_id, *others = [await submit_long(api) for _ in range(16)]
    await page.get_by_role("button", name="Running").focus()
    await page.keyboard.press("Enter")
    await section(page, "Jobs").get_by_role("button", name=shown(job_id)).focus()
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name="Cancel job").focus()
    await page.keyboard.press("Enter")

    ended = (await api.get(f"/v1/jobs/{job_id}", params={"wait": 20})).json()
    await cancel(api, others)
    assert ended["status"] == "cancelled"
    await expect(page.get_by_role("dialog")).to_contain_text("cancelled")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_be_hidden()


@pytest.mark.parametrize("console", ["light", "dark"], indirect=True)
async def test_a_full_queue_raises_the_level_in_sight(
    console: Console, api: httpx.AsyncClient, request: pytest.FixtureRequest
) -> None:
    await console.sign_in()
    page = console.page
    model = page.get_by_role("article", name="Model default")
    await expect(model).to_contain_text("Level 0")
    async with paused(api):
        jobs = [{"prompt": f"order {n}?", "service_class": "standard"} for n in range(90)]
        (await api.post("/v1/jobs/bulk", json={"jobs": jobs})).raise_for_status()

        await expect(model).to_contain_text("Level 1 · truncate")
        await expect(page.get_by_role("region", name="What needs attention")).to_contain_text(
            "level 1 (truncate)"
        )
        await expect(section(page, "Who fills the queue")).to_contain_text("development")
        await expect(page.get_by_role("region", name="Changes of level").first).to_contain_text("0 → 1")
        colours = request.node.callspec.params["console"]
        await console.take_picture("console" if colours == "light" else "console-dark", whole=True)
        if colours == "light":
            await console.take_numbered_picture("console-numbered")
        assert await serious(page) == []
        waiting = await api.get("/v1/admin/jobs", params={"which": "waiting", "limit": 100})
        await cancel(api, [job["id"] for job in waiting.json()["data"]])
    await expect(model).to_contain_text("Level 0")


async def test_a_level_is_pinned_and_let_go(console: Console) -> None:
    await console.sign_in()
    page = console.page
    model = page.get_by_role("article", name="Model default")
    await page.get_by_label("Level to pin default at").select_option("2 template")
    await page.get_by_role("button", name="Pin level").click()

    await expect(model).to_contain_text("Level 2 · template")
    await expect(model).to_contain_text("pinned by key_operator")
    await page.get_by_role("button", name="Take pin back").click()
    await expect(page.get_by_role("button", name="Take pin back")).to_be_hidden()


async def test_a_dead_letter_is_sent_again_and_answered(
    console: Console, api: httpx.AsyncClient, tmp_path: Path
) -> None:
    await console.sign_in()
    page = console.page
    letters = page.get_by_role("region", name="Dead letters").first
    await expect(letters).to_contain_text("None: no job used up its attempts")
    async with paused(api):
        job_id = await submit(api)
        await lose_thrice(console.platform, job_id)
        row = letters.get_by_role("row", name=shown(job_id))
        await expect(row).to_contain_text("the worker was lost in each of 3 attempts")

        await row.get_by_role("button", name="Requeue").click()

        await expect(row).to_have_count(0)
    [again] = [one for one in (await api.get("/v1/jobs")).json()["data"] if one["retry_of"] == job_id]
    ended = (await api.get(f"/v1/jobs/{again['id']}", params={"wait": 20})).json()
    assert ended["status"] == "completed"


async def lose_thrice(platform: Up, job_id: str) -> None:
    """Workers take the job and are never heard of again, and upkeep finds it each time."""
    settings = Settings(database=DatabaseSettings(url=f"sqlite+aiosqlite:///{platform.folder}/penstock.db"))
    database = open_database(settings.database)
    upkeep = Upkeep(database, FakePublisher(["default"]), settings, ["default"])
    for generation in range(3):
        await claim(database, (job_id, generation), worker="lost", lease=timedelta(seconds=-1))
        await upkeep.reap()
    await database.close()


async def test_a_session_that_ended_asks_for_the_key_again(console: Console) -> None:
    await console.sign_in()
    page = console.page
    await page.context.clear_cookies()
    await page.get_by_role("button", name="Pin level").click()

    await expect(page.get_by_role("alert")).to_have_text("The session has ended: sign in again.")
    await expect(page.get_by_label("API key")).to_be_focused()
    console.troubles.clear()  # the 401 that told the page


async def test_the_first_key_skips_to_the_queues_and_a_small_screen_has_all_of_it(console: Console) -> None:
    await console.page.set_viewport_size({"width": 390, "height": 800})
    await console.sign_in()
    page = console.page
    await page.reload()
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the queues")).to_be_focused()
    await page.keyboard.press("Enter")

    await expect(page.locator("#queues")).to_be_focused()
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await page.evaluate(wide) == 0


async def test_signing_out_shuts_the_door(console: Console) -> None:
    await console.sign_in()
    page = console.page
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_label("API key")).to_be_visible()
    await page.reload()

    await expect(page.get_by_label("API key")).to_be_visible()
    assert await serious(page) == []


async def test_a_platform_without_workers_says_what_to_start(chromium: Browser, tmp_path: Path) -> None:
    with lonely_api(tmp_path, KEY) as platform:
        context = await chromium.new_context()
        console = await watch(context, platform)
        await console.sign_in()
        page = console.page
        await page.get_by_role("textbox", name="Prompt").fill("where is my order")
        await page.get_by_role("button", name="Send").click()
        await page.get_by_role("button", name="Timeline").click()

        await expect(page.get_by_role("dialog")).to_contain_text("No worker that serves default is alive")
        await page.keyboard.press("Escape")
        attention = page.get_by_role("region", name="What needs attention")
        await expect(attention).to_contain_text(
            "No worker is alive and one job waits. Start one: penstock worker"
        )
        await expect(section(page, "Workers and engines")).to_contain_text("nothing runs. Start one")
        await context.close()
    assert console.troubles == []


async def test_an_api_that_went_away_is_said_and_found_again(chromium: Browser, tmp_path: Path) -> None:
    port = free_port()
    with up(tmp_path, port=port) as first:
        context = await chromium.new_context()
        console = await watch(context, first)
        await console.sign_in()
    link = console.page.locator("#link")
    await expect(link).to_contain_text("The API does not answer. What you see is from")
    with up(tmp_path, port=port):
        await expect(link).to_have_text("Live")
    await context.close()
