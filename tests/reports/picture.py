"""Save one figure of a report as the picture the README shows: python picture.py REPORT.html TITLE OUT.png."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright


def main(report: str, title: str, out: str) -> None:
    """Screenshot of the first figure whose title begins with ``title``, at twice the screen's resolution."""
    browser_path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 900, "height": 900}, device_scale_factor=2)
        page.goto(Path(report).resolve().as_uri())
        figure = page.locator(".js-plotly-plot", has_text=title).first
        figure.locator(".main-svg").first.wait_for(timeout=60_000)
        figure.scroll_into_view_if_needed()
        page.wait_for_timeout(1000)
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        figure.screenshot(path=out)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
