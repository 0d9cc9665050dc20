"""Headless Chromium, told what to do over its DevTools protocol."""

import asyncio
import contextlib
import itertools
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Page:
    """A page: what it asked for, what of that failed, and what is on it."""

    def __init__(self, socket):
        self.socket, self.numbers = socket, itertools.count(1)
        self.asked, self.failed, self.errors = [], [], []

    async def call(self, method, **params):
        """Have the browser do something and return its answer, keeping what it tells meanwhile."""
        number = next(self.numbers)
        await self.socket.send_json({"id": number, "method": method, "params": params})
        while True:
            told = json.loads((await self.socket.receive(timeout=60)).data)
            if told.get("id") == number:
                assert "error" not in told, told
                return told["result"]
            self._note(told["method"], told["params"])

    def _note(self, method, params):
        if method == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"][:200])
        if method == "Network.loadingFailed":
            self.failed.append(params)
        if method == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"])

    async def look(self, script):
        """The value of a script."""
        done = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return done["result"].get("value")

    async def until(self, script, seconds=30):
        """Wait until a script's value is true."""
        for _ in range(seconds * 5):
            if await self.look(script):
                return
            await asyncio.sleep(0.2)
        raise AssertionError(
            f"never came true: {script}\n{await self.look('document.body.innerText')}"
        )


def visit(path: Path, do, width=1400, height=900):
    """What `do(page)`, a coroutine, returns of a file that the browser has opened."""
    with tempfile.TemporaryDirectory() as profile:
        words = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
                 "--remote-debugging-port=0", f"--user-data-dir={profile}",
                 f"--window-size={width},{height}", "about:blank"]  # fmt: skip
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as browser:
            try:
                return asyncio.run(_visit(browser, path, do))
            finally:
                browser.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    browser.wait(10)
                browser.kill()


async def _visit(browser, path, do):
    address = next(line.split()[-1] for line in browser.stderr if "DevTools listening" in line)
    port = address.split(":")[2].split("/")[0]
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/json") as answer:
            [tab] = [each for each in await answer.json() if each["type"] == "page"]
        async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            page = Page(socket)
            for domain in ("Network", "Page", "Runtime"):
                await page.call(f"{domain}.enable")
            await page.call("Page.navigate", url=path.absolute().as_uri())
            await page.until("document.readyState == 'complete'")
            return await do(page)
