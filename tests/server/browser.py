"""A real browser for tests: the machine's own Chromium, which can reach only the servers of the test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright

NAME = "budgets.test"
"""A host name that the browser resolves to this machine, but does not trust as it trusts localhost."""
_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--host-resolver-rules=MAP {NAME} 127.0.0.1",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield a browser. Without Chromium the test is skipped, or fails where CI is set."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium is installed")
        pytest.skip("no chromium is installed")
    expect.set_options(timeout=15_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A tab that records everything that our pages must not cause: errors on the console, requests to other hosts."""

    def __init__(self, browser: Browser, url: str, *expected: str, **options: Any) -> None:
        """`expected` are texts that the console may contain."""
        self.url = url
        self.context: BrowserContext = browser.new_context(base_url=url, **options)
        self.page: Page = self.context.new_page()
        self.wrong: list[str] = []
        self._expected = expected
        self.requests: list[str] = []
        self.page.set_default_timeout(15_000)
        self.page.on("console", lambda message: self._note(message.type in ("error", "warning"), message.text))
        self.page.on("pageerror", lambda error: self._note(True, str(error)))
        self.page.on("dialog", lambda dialog: self._note(True, dialog.message))
        self.page.on("request", self._requested)

    def _note(self, wrong: bool, text: str) -> None:
        if wrong and not any(part in text for part in self._expected):
            self.wrong.append(text)

    def _requested(self, request: Request) -> None:
        self.requests.append(request.url)
        self._note(not request.url.startswith(f"{self.url}/"), f"a request to {request.url}")

    def close(self) -> None:
        """Close the tab, and fail if anything was wrong."""
        self.context.close()
        assert not self.wrong, self.wrong
