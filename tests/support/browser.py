"""Debian's Chromium, driven by Playwright, and the accessibility checker axe in it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1280, "height": 800}


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser. Where there is none the test is skipped; in CI it fails."""
    program = shutil.which("chromium")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is not installed: scripts/ensure-browser.sh")
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        # Its sandbox needs rights that root in a container has not; it opens our own pages only.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def wrong_for_axe(page: Page) -> list[dict[str, Any]]:
    """What axe finds on a page: rule, help and the elements; empty is what is wanted.

    The page's own policy forbids scripts that are not its own, so a context that is to be checked
    is made with ``bypass_csp=True``.
    """
    found = Axe().run(page).response["violations"]
    return [
        {"rule": v["id"], "help": v["help"], "nodes": [node["html"] for node in v["nodes"]]}
        for v in found
    ]
