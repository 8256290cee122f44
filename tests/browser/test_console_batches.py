"""An operator stops a batch and runs its lines again, at the console, with the keyboard."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest
from playwright.async_api import Locator, Page, Route, expect

from tests.browser.conftest import Console, serious

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]
MODEL = "/v1/admin/models/default"
LINES = 5


@asynccontextmanager
async def waiting_batch(api: httpx.AsyncClient) -> AsyncIterator[str]:
    """A batch whose lines wait, because the model is paused meanwhile."""
    (await api.post(f"{MODEL}/pause")).raise_for_status()
    try:
        yield await submit(api)
    finally:
        (await api.post(f"{MODEL}/resume")).raise_for_status()


async def submit(api: httpx.AsyncClient) -> str:
    body = {"model": "default", "messages": [{"role": "user", "content": "where is my order"}]}
    line = {"method": "POST", "url": "/v1/chat/completions", "body": body | {"max_tokens": 8}}
    content = b"\n".join(orjson.dumps({"custom_id": f"c{number}"} | line) for number in range(LINES))
    file = await api.post("/v1/files", files={"file": ("in.jsonl", content)}, data={"purpose": "batch"})
    wanted: dict[str, Any] = {
        "input_file_id": file.raise_for_status().json()["id"],
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    batch_id: str = (await api.post("/v1/batches", json=wanted)).raise_for_status().json()["id"]
    return batch_id


def row_of(page: Page, batch_id: str) -> Locator:
    batches = page.get_by_role("region", name="Batches", exact=True).first
    return batches.get_by_role("row", name=re.compile(re.escape(batch_id[-6:])))


async def test_a_batch_is_stopped_and_run_again_with_the_keyboard(
    console: Console, api: httpx.AsyncClient
) -> None:
    await console.sign_in()
    page = console.page
    async with waiting_batch(api) as batch_id:
        row = row_of(page, batch_id)
        await expect(row).to_contain_text(f"0 / {LINES}")
        await expect(row.get_by_role("button", name="Retry failed lines")).to_be_hidden()
        cancel = row.get_by_role("button", name="Cancel batch")
        await cancel.focus()
        await page.keyboard.press("Enter")

        question = page.get_by_role("alertdialog", name="Cancel batch")
        await expect(question).to_contain_text(f"{LINES} of its {LINES} lines have not ended")
        await expect(page.get_by_role("button", name="Let it run")).to_be_focused()
        assert await serious(page) == []
        await page.keyboard.press("Escape")
        await expect(question).to_be_hidden()
        await expect(cancel).to_be_focused()
        assert (await api.get(f"/v1/batches/{batch_id}")).json()["status"] == "in_progress"

        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await expect(page.locator("#toast")).to_contain_text("is being cancelled")
        await expect(row).to_contain_text("cancelled")
        await expect(cancel).to_be_hidden()
        # Its button is gone, and the focus has stayed where it was.
        await expect(page.get_by_role("region", name="Batches").last).to_be_focused()

    await row.get_by_role("button", name="Retry failed lines").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alertdialog")).to_contain_text(f"the {LINES} lines that did not complete")
    await page.get_by_role("button", name="Run them again").press("Enter")
    await expect(page.locator("#toast")).to_contain_text("A new batch runs the failed lines")
    again = (await api.get("/v1/batches")).json()["data"][0]
    assert again["retry_of"] == batch_id
    await expect(row_of(page, again["id"])).to_contain_text(f"{LINES} / {LINES}")


async def test_an_action_that_the_api_does_not_hear_is_said(console: Console, api: httpx.AsyncClient) -> None:
    async def cut_off(route: Route) -> None:
        await route.abort()

    await console.sign_in()
    page = console.page
    await page.route("**/v1/admin/batches/**", cut_off)
    async with waiting_batch(api) as batch_id:
        row = row_of(page, batch_id)
        await row.get_by_role("button", name="Cancel batch").click()
        await page.get_by_role("button", name="Cancel the batch").click()

        await expect(page.locator("#toast")).to_have_text("The API does not answer. Is it running?")
        await expect(row.get_by_role("button", name="Cancel batch")).to_be_enabled()
        console.troubles.clear()  # the browser itself notes a request that failed
    await expect(row).to_contain_text("completed")


async def test_a_batch_that_ended_meanwhile_is_refused_with_a_reason(
    console: Console, api: httpx.AsyncClient
) -> None:
    await console.sign_in()
    page = console.page
    async with waiting_batch(api) as batch_id:
        await row_of(page, batch_id).get_by_role("button", name="Cancel batch").click()
    await expect(row_of(page, batch_id)).to_contain_text("completed")

    await page.get_by_role("button", name="Cancel the batch").click()

    await expect(page.locator("#toast")).to_contain_text("The batch is completed: nothing of it can be")
    console.troubles.clear()  # the browser itself notes a 409
