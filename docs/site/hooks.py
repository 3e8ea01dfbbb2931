"""What mkdocs does not do by itself: which files are pages, where their links lead, formulas.

The site has the tree of the repository, so that the links of the documents hold in both. A source
that a document links to becomes a page as well.
"""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path, PurePosixPath

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))

from commands import commands_page
from interface import interface_page

CHECKOUT = Path(__file__).resolve().parent.parent.parent
NO_DOCUMENTS = ("build", "runs", "tests")
AS_IT_IS = (".png", ".ipynb")
LANGUAGES = {".py": "python", ".cpp": "cpp", ".h": "cpp", ".toml": "toml", ".csv": "text"}

_LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put the repository's documents, and what they link to, in place of the files of docs/."""
    kept = [file for file in files if not (config.docs_dir and file.src_dir == config.docs_dir)]
    pages = [
        _file(config, CHECKOUT / "docs" / "site" / "site.css"),
        File.generated(config, "commands.md", content=commands_page(CHECKOUT)),
        File.generated(config, "python.md", content=interface_page()),
    ]
    for path in documents():
        pages.append(_file(config, path))
    for path in linked_files():
        pages.append(_file(config, path) if path.suffix in AS_IT_IS else _source(config, path))
    return Files([*kept, *pages])


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to sources lead to their pages."""
    folder = PurePosixPath(page.file.src_uri).parent

    def link(found: re.Match[str]) -> str:
        begin, target, anchor, end = found.groups()
        place = _inside(folder, target)
        is_source = place is not None and files.get_file_from_path(f"{place}.md") is not None
        return f"{begin}{target}{'.md' if is_source else ''}{anchor or ''}{end}"

    return _LINK.sub(link, markdown)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn formulas into MathML, which browsers show without any script."""

    def formula(found: re.Match[str]) -> str:
        is_block = found[1] == "div"
        return convert(html.unescape(found[2]), display="block" if is_block else "inline")

    return _FORMULA.sub(formula, content)


def documents() -> list[Path]:
    """Return the Markdown files of the checkout."""
    found = sorted(CHECKOUT.rglob("*.md"))
    parts = [(path, path.relative_to(CHECKOUT).parts) for path in found]
    return [
        path
        for path, names in parts
        if names[0] not in NO_DOCUMENTS and not any(name.startswith(".") for name in names)
    ]


def linked_files() -> list[Path]:
    """Return the other files that the documents link to; what is missing is left to mkdocs."""
    found: dict[Path, None] = {}
    for document in documents():
        folder = PurePosixPath(document.parent.relative_to(CHECKOUT).as_posix())
        for link in _LINK.finditer(document.read_text(encoding="utf-8")):
            place = _inside(folder, link[2])
            if place and place.suffix != ".md" and (CHECKOUT / place).is_file():
                found[CHECKOUT / place] = None
    return list(found)


def _inside(folder: PurePosixPath, target: str) -> PurePosixPath | None:
    """Return where a link of a document in ``folder`` leads in the repository, if it does."""
    if re.match(r"[a-z]+:|/", target):
        return None
    path = (CHECKOUT / folder / target).resolve()
    return PurePosixPath(path.relative_to(CHECKOUT)) if path.is_relative_to(CHECKOUT) else None


def _file(config: MkDocsConfig, path: Path) -> File:
    name = path.relative_to(CHECKOUT).as_posix()
    return File.generated(config, name, abs_src_path=str(path))


def _source(config: MkDocsConfig, path: Path) -> File:
    """Return a page that shows a source."""
    name, text = path.relative_to(CHECKOUT).as_posix(), path.read_text(encoding="utf-8")
    fence = "`" * 6  # more than any source has in a row
    language = LANGUAGES.get(path.suffix, "text")
    head = f"---\ntitle: {name}\nsearch:\n  exclude: true\n---\n\n# {name}\n\n"
    content = f"{head}{fence}{language}\n{text}\n{fence}\n"
    aside = InclusionLevel.NOT_IN_NAV
    return File.generated(config, f"{name}.md", content=content, inclusion=aside)
