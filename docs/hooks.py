"""What MkDocs calls while it builds the site: pages of the reference, and formulas as MathML.

Both need no network: the reference is made of the packages' own `__init__` files, and browsers draw MathML themselves.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_PACKAGE = Path(__file__).resolve().parent.parent / "neuralrecon"
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The navigation with the reference."""
    reference = ["api/index.md", *({f"neuralrecon.{p.name}": f"api/{p.name}.md"} for p in packages())]
    config.nav = [{"Reference": reference} if "Reference" in entry else entry for entry in config.nav or []]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page for each package, with all that its `__init__` re-exports."""
    for package in packages():
        files.append(File.generated(config, f"api/{package.name}.md", content=page_of(package)))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Formulas that Markdown has left as LaTeX become MathML."""
    return _FORMULA.sub(_mathml, html)


def _mathml(found: re.Match[str]) -> str:
    return convert(unescape(found[2]), display="block" if found[1] == "div" else "inline")


def packages() -> list[Path]:
    """Folders of packages and files of modules whose names others may use, in alphabetical order."""
    return sorted(path.parent for path in _PACKAGE.glob("*/__init__.py") if any(exports(path.parent)))


def exports(package: Path) -> Iterator[tuple[str, str]]:
    """(name, where it is defined) of everything that a package re-exports, or defines in its `__init__`."""
    tree = ast.parse((package / "__init__.py").read_text())
    here = f"neuralrecon.{package.name}"
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            yield from ((a.name, f"{here}.{node.module}.{a.name}") for a in node.names if a.asname == a.name)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, f"{here}.{node.name}"


def page_of(package: Path) -> str:
    """The Markdown of a package's page: what its docstring says, then each name."""
    about = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    names = "\n\n".join(f"::: {where}" for _, where in exports(package))
    return f"# `neuralrecon.{package.name}`\n\n{about}\n\n{names}\n"
