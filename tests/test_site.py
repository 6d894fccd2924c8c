"""The documentation site: it builds without a warning, and a real browser finds no fault in it.

`python -m tests.test_site` writes docs/llms.txt, the list of pages for language models, from the site's menu.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from tests.server.browser import Watched, chromium

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
LLMS = DOCS / "llms.txt"
_SOURCE = "https://github.com/litellm-budget-plugin/litellm-budget-plugin/blob/main/docs/"


def _menu() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]
    return project


def _pages(entries: list[Any], section: str = "") -> Iterator[tuple[str, str]]:
    """Yield the section and the path of each page in the menu."""
    for entry in entries:
        title, value = next(iter(entry.items())) if isinstance(entry, dict) else ("", entry)
        if isinstance(value, list):
            yield from _pages(value, title)
        else:
            yield section, value


def _first_sentence(text: str) -> str:
    """Return the first sentence of a page's first paragraph, without markup."""
    for paragraph in text.split("\n\n")[1:]:
        if re.match(r"(?!```)[A-Z`*\[]", paragraph):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(paragraph.split())).replace("**", "")
            return re.split(r"(?<=[.:]) ", plain)[0].rstrip(":")
    return ""


def _llms() -> str:
    project = _menu()
    lines = [f"# {project['site_name']}", "", f"> {project['site_description']}"]
    of = ""
    for section, path in _pages(project["nav"]):
        if section != of:
            lines += ["", f"## {section}"]
            of = section
        text = (DOCS / path).read_text("utf-8")
        if path != "changelog.md":
            lines.append(f"- [{text.splitlines()[0].removeprefix('# ')}]({_SOURCE}{path}): {_first_sentence(text)}")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a link that leads nowhere stops it."""
    if sys.version_info < (3, 11):
        pytest.skip("zensical needs Python 3.11")
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, folder / "docs")
    for name in ("zensical.toml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, folder)
    (folder / "litellm_budget_plugin").symlink_to(ROOT / "litellm_budget_plugin")
    command = [Path(sys.executable).with_name("zensical"), "build", "--strict"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def base(site: Path) -> Iterator[str]:
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def _addresses(site: Path) -> list[str]:
    folders = sorted(page.parent.relative_to(site).as_posix() for page in site.rglob("index.html"))
    return ["/" if folder == "." else f"/{folder}/" for folder in folders]


def test_every_page_is_in_the_menu() -> None:
    in_menu = [path for _, path in _pages(_menu()["nav"])]
    assert sorted(in_menu) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def test_the_list_of_pages_for_language_models_is_up_to_date() -> None:
    assert LLMS.read_text("utf-8") == _llms(), "run `python -m tests.test_site`"
    assert not re.findall(r"\): *$", _llms(), re.MULTILINE), "a page does not begin with a sentence"


def test_the_pictures_are_as_drawn() -> None:
    spec = importlib.util.spec_from_file_location("draw", DOCS / "pictures" / "draw.py")
    assert spec is not None
    assert spec.loader is not None
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    for name, picture in draw.PICTURES.items():
        written = (DOCS / "pictures" / f"{name}.svg").read_text("utf-8")
        assert written == picture().svg(), "run `python docs/pictures/draw.py`"


def test_the_api_page_documents_every_public_name(site: Path) -> None:
    import litellm_budget_plugin

    page = (site / "api" / "index.html").read_text("utf-8")
    missing = [
        name
        for name in litellm_budget_plugin.__all__
        if not re.search(rf'id="litellm_budget_plugin[\w.]*\.{name}"', page)
    ]
    assert not missing


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible_and_quiet(browser: Browser, site: Path, base: str, scheme: str) -> None:
    """No error on the console, no request to another host, no violation by axe. In the dark scheme, one page of each sort is enough."""
    addresses = _addresses(site) if scheme == "light" else ["/", "/api/", "/reference/", "/how-to/name-the-user/"]
    tab = Watched(browser, base, color_scheme=scheme)
    found = {}
    for address in addresses:
        tab.page.goto(address)
        violations = Axe().run(tab.page).response["violations"]
        if violations:
            found[address] = [(v["id"], [node["html"][:200] for node in v["nodes"]]) for v in violations]
    assert not found
    tab.close()


def test_pages_fit_a_phone(browser: Browser, site: Path, base: str) -> None:
    tab = Watched(browser, base, viewport={"width": 360, "height": 740})
    wide = []
    for address in _addresses(site):
        tab.page.goto(address)
        if tab.page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wide.append(address)
    assert not wide
    tab.close()


@pytest.mark.parametrize(
    ("words", "page"),
    [("team budget", "Name teams, tags and runs"), ("max_tokens", "Guarantees"), ("Open WebUI", "Use with Open WebUI")],
)
def test_the_search_finds(browser: Browser, base: str, words: str, page: str) -> None:
    tab = Watched(browser, base)
    tab.page.goto("/", wait_until="networkidle")  # the search works after its index is loaded
    tab.page.keyboard.press("Control+k")
    tab.page.locator("input[type=search], input[role=combobox], input[placeholder]").last.wait_for()
    tab.page.keyboard.type(words)
    tab.page.locator("ol a").filter(has_text=page).first.wait_for()
    tab.close()


if __name__ == "__main__":
    LLMS.write_text(_llms(), "utf-8")
