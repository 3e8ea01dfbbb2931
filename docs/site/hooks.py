"""What mkdocs does not do by itself: which files are pages, where links lead, --help, formulas.

The site has the tree of the repository, so that the links of the documents hold in both. A source
that a document links to becomes a page as well.
"""

from __future__ import annotations

import html
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

CHECKOUT = Path(__file__).resolve().parent.parent.parent
NO_DOCUMENTS = ("build", "runs", "tests")
AS_IT_IS = (".png", ".ipynb")
LANGUAGES = {".py": "python", ".cpp": "cpp", ".h": "cpp", ".toml": "toml"}
# Scripts, and what chooses which of their flags there are.
COMMANDS: Sequence[str] = (
    "threshold_search/binary_search.py",
    "threshold_search/success_rate.py",
    "threshold_search/merge_logs.py",
    "mlp_experiments/train_mlp.py",
    "transformer_experiments/train_transformer.py",
    "transformer_experiments/train_transformer.py --architecture decoder-only",
    "visualizations/figures.py",
    "visualizations/figures.py history",
    "study/pages.py",
    "dataset/synthetic_generator.py",
)
# Modules and objects of the Python interface; their docstrings say the rest.
INTERFACE: Sequence[str] = (
    *("threshold_search.api", "threshold_search.options.Options"),
    "mlp_experiments.mlp_utils.MLPArchitecture",
    "transformer_experiments.transformer_utils.TransformerArchitecture",
    "transformer_experiments.decoder_only_utils.DecoderOnlyArchitecture",
    *("training.protocol", "training.probe", "training.errors"),
    *("visualizations.results", "visualizations.summary", "visualizations.success"),
    *("visualizations.threshold_lines.threshold_figure", "visualizations.search_figure"),
    *("visualizations.history", "visualizations.figure_files"),
    *("study.comparison", "study.folder", "study.figures"),
    "dataset.synthetic_generator",
    *("training.spec", "training.module", "dataset.task", "training.losses", "training.optimizers"),
)

_LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
_ROLE = re.compile(r":(?:class|func|meth|attr|mod):<code>~?(([\w.]*\.)?(\w+))</code>")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put the repository's documents, and what they link to, in place of the files of docs/."""
    kept = [file for file in files if not (config.docs_dir and file.src_dir == config.docs_dir)]
    directives = "\n".join(f"::: {name}\n" for name in INTERFACE)
    pages = [
        _file(config, CHECKOUT / "docs" / "site" / "site.css"),
        File.generated(config, "commands.md", content=_commands_page()),
        File.generated(config, "python.md", content=f"# Python interface\n\n{directives}"),
    ]
    documents = [
        path
        for path in sorted(CHECKOUT.rglob("*.md"))
        if not any(
            name in NO_DOCUMENTS or name.startswith(".")
            for name in path.relative_to(CHECKOUT).parts[:-1]
        )
    ]
    linked = {
        CHECKOUT / place: None
        for path in documents
        for link in _LINK.finditer(path.read_text(encoding="utf-8"))
        if (place := _inside(path.parent, link[2])) and (CHECKOUT / place).is_file()
    }
    pages += [_file(config, path) for path in documents]
    pages += [
        _file(config, path) if path.suffix in AS_IT_IS else _source(config, path)
        for path in linked
        if path.suffix != ".md"
    ]
    return Files([*kept, *pages])


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to sources lead to their pages."""
    folder = CHECKOUT / PurePosixPath(page.file.src_uri).parent

    def link(found: re.Match[str]) -> str:
        begin, target, anchor, end = found.groups()
        place = _inside(folder, target)
        is_source = place is not None and files.get_file_from_path(f"{place}.md") is not None
        return f"{begin}{target}{'.md' if is_source else ''}{anchor or ''}{end}"

    return _LINK.sub(link, markdown)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn formulas into MathML, which needs no script, and roles of docstrings into links."""

    def formula(found: re.Match[str]) -> str:
        is_block = found[1] == "div"
        return convert(html.unescape(found[2]), display="block" if is_block else "inline")

    role = r'<autoref identifier="\1" optional><code>\3</code></autoref>'
    return _ROLE.sub(role, _FORMULA.sub(formula, content))


def _commands_page() -> str:
    """Return what every script says with --help."""
    parts = ["# Commands\n"]
    for command in COMMANDS:
        shown = subprocess.run(
            [sys.executable, *command.split(), "--help"],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.replace(f"{CHECKOUT}/", "")
        parts.append(f"## {command}\n\n```text\n{shown}```\n")
    return "\n".join(parts)


def _inside(folder: Path, target: str) -> PurePosixPath | None:
    """Return where a link of a document in ``folder`` leads in the repository, if it does."""
    path = (folder / target).resolve()
    is_inside = not re.match(r"[a-z]+:|/", target) and path.is_relative_to(CHECKOUT)
    return PurePosixPath(path.relative_to(CHECKOUT)) if is_inside else None


def _file(config: MkDocsConfig, path: Path) -> File:
    name = path.relative_to(CHECKOUT).as_posix()
    return File.generated(config, name, abs_src_path=str(path))


def _source(config: MkDocsConfig, path: Path) -> File:
    """Return a page that shows a source, fenced by more backticks than any source has in a row."""
    name, text = path.relative_to(CHECKOUT).as_posix(), path.read_text(encoding="utf-8")
    head = f"---\ntitle: {name}\nsearch:\n  exclude: true\n---\n\n# {name}\n\n"
    content = f"{head}``````{LANGUAGES.get(path.suffix, 'text')}\n{text}\n``````\n"
    aside = InclusionLevel.NOT_IN_NAV
    return File.generated(config, f"{name}.md", content=content, inclusion=aside)
