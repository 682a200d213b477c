"""The live page in a real browser."""

import asyncio
import shutil

import pytest

from tests.serving.running_server import MODEL, QUESTION, running
from tests.serving.scripted_engine import ScriptedEngine

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
SC = f"{MODEL}:self-consistency"
ATTACK = "<img src=x onerror=document.title='hacked'>"


async def test_the_page_shows_queries_live_and_runs_no_answers():
    playwright = pytest.importorskip("playwright.async_api")
    answers = [ATTACK, "7", "7"]
    engine = ScriptedEngine(lambda r: f"\\boxed{{{answers[r.index]}}}" if r.index < 3 else None)
    async with running(engine) as server, playwright.async_playwright() as play:
        asking = asyncio.create_task(
            server.openai().chat.completions.create(
                model=SC,
                messages=QUESTION,
                extra_body={"dynasor": {"wave": 1, "stop": {"rule": "fixed:9"}}},
            )
        )
        browser = await play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = await browser.new_page(color_scheme="dark")
        problems, foreign = [], []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console", lambda line: problems.append(line.text) if line.type == "error" else None
        )
        page.on(
            "request", lambda r: None if r.url.startswith(server.root) else foreign.append(r.url)
        )
        await page.goto(server.root)
        card = page.get_by_role("listitem").filter(has_text="3 of 16 samples")
        await card.wait_for()
        assert "7" in await card.inner_text()
        assert ATTACK in await card.inner_text()  # as a text
        assert await card.get_by_role("img", name="7: 2 votes").count() == 1
        assert await card.get_by_role("img", name="certainty").count() == 1
        assert await page.title() == "(1) Dynasor"
        assert await page.get_by_text("Answers in time").is_visible()

        async def background():
            return await page.evaluate("getComputedStyle(document.body).backgroundColor")

        dark = await background()
        await page.keyboard.press("t")
        assert await background() != dark
        await page.keyboard.press("j")
        assert (await page.evaluate("document.activeElement.tagName")) == "LI"
        await page.keyboard.press("p")
        assert (
            await page.get_by_role("button", name="Go on").get_attribute("aria-pressed") == "true"
        )
        await page.keyboard.press("p")
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await page.get_by_text("left", exact=True).wait_for()
        await page.keyboard.press("r")
        await page.get_by_text("No query yet").wait_for()
        unnamed = (
            "[...document.querySelectorAll('button')].filter(b => !b.textContent.trim()).length"
        )
        assert await page.evaluate(unnamed) == 0
        await browser.close()
    assert not problems
    assert not foreign
