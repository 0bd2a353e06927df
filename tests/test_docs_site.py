"""The documentation site: builds without a warning or a network, has every public name, formula and page."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = sorted(path.parent for path in (ROOT / "neuralrecon").glob("*/__init__.py"))


class Page(HTMLParser):
    """The ids of a page, what it loads when it is shown, and its text outside of code."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.loads: list[str] = []
        self.n_formulas = 0
        self.prose: list[str] = []
        self._in_code = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.ids |= {told["id"] or ""} if "id" in told else set()
        self.n_formulas += tag == "math"
        self._in_code += tag in ("code", "script", "style")
        source = told.get("src") or (told.get("href") if tag == "link" else None)
        if source and told.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(source)

    def handle_endtag(self, tag: str) -> None:
        self._in_code -= tag in ("code", "script", "style")

    def handle_data(self, data: str) -> None:
        if not self._in_code:
            self.prose.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: any warning, such as a link that leads nowhere, ends it."""
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def re_exported(package: Path) -> set[str]:
    tree = ast.parse((package / "__init__.py").read_text())
    return {a.name for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names if a.asname == a.name}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_the_reference_has_every_public_name(package: Path, site: Path) -> None:
    names = re_exported(package)
    if not names:
        return
    ids = Page((site / "api" / f"{package.name}.html").read_text()).ids
    missing = {n for n in names if not any(i.startswith("neuralrecon.") and i.endswith(f".{n}") for i in ids)}
    assert not missing


def test_names_are_found_where_they_are() -> None:
    """A canary for the test above."""
    assert {"fit", "FitConfig", "load_fit"} <= re_exported(ROOT / "neuralrecon" / "train")


def test_every_page_is_built_and_in_the_navigation(site: Path) -> None:
    home = (site / "index.html").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
        assert (site / name).is_file()
        assert f'href="{name}"' in home, f"{name} is not in the navigation of mkdocs.yml"


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    """No fonts, scripts, styles or pictures of another host; pages of ours only link there."""
    for file in site.rglob("*.html"):
        outside = [source for source in Page(file.read_text()).loads if re.match(r"(https?:)?//", source)]
        assert not outside, file


def test_formulas_are_mathml(site: Path) -> None:
    """As many as there are in the source, and no dollar or backslash of one is left in the text."""
    source = re.sub(r"`[^`]*`", "", (ROOT / "docs" / "method.md").read_text())
    wanted = len(re.findall(r"\$\$.+?\$\$|\$[^$]+?\$", source, re.DOTALL))
    page = Page((site / "method.html").read_text())
    assert wanted > 50
    assert page.n_formulas == wanted
    assert not re.search(r"\\\w|\$", "".join(page.prose))
