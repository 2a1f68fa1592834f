"""The interactive page of the REST API in a real browser: it works, and it fetches nothing from anybody else."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright

from tests.support.processes import CHECKOUT
from tests.support.programs import need
from tests.support.rest import Server, rest_server

pytestmark = pytest.mark.system

WAIT_MS = 20_000
# Violations of the policy, as the browser itself reports them.
LISTEN = """window.violations = [];
document.addEventListener("securitypolicyviolation", event =>
    window.violations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));"""


class Watch:
    """A page of a browser, and all that it asked for and complained about."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.set_default_timeout(WAIT_MS)
        page.add_init_script(LISTEN)
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url}"))
        page.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))
        page.on(
            "console",
            lambda line: self.complaints.append(line.text) if line.type in ("error", "warning") else None,
        )

    def faults(self, port: int) -> list[str]:
        """What went wrong: complaints, violations of the policy, requests to anything but our server."""
        away = [
            url
            for url in self.requests
            if urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).netloc != f"127.0.0.1:{port}"
        ]
        return [*self.complaints, *self.page.evaluate("window.violations"), *away]


@contextmanager
def browser_page() -> Iterator[Watch]:
    """A page in Debian's Chromium, without a window."""
    with sync_playwright() as playwright:
        # Names are resolved by nobody: a request to elsewhere fails, and is seen all the same.
        options = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]
        browser = playwright.chromium.launch(executable_path=need("chromium"), args=options)
        try:
            yield Watch(browser.new_page())
        finally:
            browser.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with rest_server(tmp_path) as running:
        yield running


def readme_device() -> str:
    """The device that the README has its reader describe."""
    readme = (CHECKOUT / "README.md").read_text()
    found = re.search(r"/api/v1/devices -H 'Content-Type: application/json' -d '\n(.*?)'\n", readme, re.DOTALL)
    assert found is not None
    return found[1]


def operation(page: Page, method: str, path: str) -> Locator:
    """One operation of the page, opened."""
    # The page breaks long paths with zero-width spaces; the attribute has the path as it is.
    block = page.locator(f".opblock-{method}").filter(has=page.locator(f'[data-path="{path}"]'))
    block.locator(".opblock-summary").click()
    block.get_by_role("button", name="Try it out").click()
    return block


def status_and_body(block: Locator) -> tuple[str, str]:
    """What the page shows of the server's answer."""
    answer = block.locator(".live-responses-table .response")
    expect(answer).to_be_visible(timeout=WAIT_MS)
    return (
        answer.locator(".response-col_status").inner_text().split()[0],
        answer.locator(".highlight-code code").first.inner_text(),
    )


def test_the_page_makes_the_readmes_device_and_reads_it_back(server: Server) -> None:
    with browser_page() as watch:
        page = watch.page
        page.goto(f"http://127.0.0.1:{server.port}/")
        assert urlsplit(page.url).path == "/docs/"
        expect(page.get_by_role("heading", name="Tagwire")).to_be_visible(timeout=WAIT_MS)

        post = operation(page, "post", "/api/v1/devices")
        post.locator("textarea.body-param__text").fill(readme_device())
        post.get_by_role("button", name="Execute").click()
        status, body = status_and_body(post)
        assert status == "201"
        assert json.loads(body)["name"] == "boiler"

        get = operation(page, "get", "/api/v1/devices/{device}")
        get.get_by_placeholder("device").fill("boiler")
        get.get_by_role("button", name="Execute").click()
        status, body = status_and_body(get)
        assert status == "200"
        assert json.loads(body)["tags"][0]["unit"] == "°C"

        assert watch.faults(server.port) == []
        assert any(url.endswith("/api/v1/devices/boiler") for url in watch.requests)
    assert server.ask("GET", "/api/v1/devices/boiler").json["tags"][0]["name"] == "temperature"


def test_the_watch_sees_a_script_from_elsewhere_and_a_forbidden_one(server: Server) -> None:
    """What the test above relies on: the browser does report these."""
    with browser_page() as watch:
        page = watch.page
        page.goto(f"http://127.0.0.1:{server.port}/docs/")
        page.evaluate(
            """new Promise(done => { const script = document.createElement("script");
            script.src = "http://elsewhere.example/x.js"; script.onerror = done; document.head.append(script); })"""
        )
        text = "\n".join(watch.faults(server.port))
        assert "script-src" in text
        assert "elsewhere.example" in text
