"""The site of `make docs`: it builds, its links lead somewhere, every flag is there."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from documents import DOCUMENTS, name_of
from scripts import ROOT, SCRIPTS, checkout

for package in ("mkdocs", "material", "mkdocstrings", "latex2mathml"):
    pytest.importorskip(package, reason="the packages of .[docs] are not installed")


def build(folder, target):
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)],
        cwd=folder,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


class Links(HTMLParser):
    """What a page links to or shows, and the places in it that links can lead to."""

    def __init__(self, path):
        super().__init__()
        self.targets, self.places = [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.targets += [values[name] for name in ("href", "src") if values.get(name)]
        self.places |= {values[name] for name in ("id", "name") if values.get(name)}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    ended = build(ROOT, folder)
    assert ended.returncode == 0, ended.stderr
    return folder


def page(site, name):
    return (site / name).read_text(encoding="utf-8")


def test_every_link_of_every_page_leads_somewhere(site):
    pages = {path: Links(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > len(DOCUMENTS)
    broken = []
    for path, found in pages.items():
        for target in found.targets:
            parts = urlsplit(target)
            if parts.scheme:
                continue
            where = (
                Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
            )
            place = unquote(parts.fragment)
            if not where.is_file() or (place and place not in pages[where].places):
                broken.append((path.relative_to(site).as_posix(), target))
    assert not broken


def test_nothing_is_loaded_from_elsewhere(site):
    loads = re.compile(r"<(?:script|img|link rel=\"stylesheet\")[^>]*(?:src|href)=\"https?:")
    for path in site.rglob("*.html"):
        assert not loads.search(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_document_is_a_page(document, site):
    place = site / document.relative_to(ROOT)
    names = {"README.md": "index.html"}
    assert place.with_name(names.get(place.name, f"{place.stem}.html")).is_file()


def test_the_commands_are_those_of_the_parsers(site):
    text = page(site, "commands.html")
    for script in SCRIPTS:
        assert script.relative_to(ROOT).as_posix() in text
    for flag in ("--evaluation-interval", "--figure", "--history", "--num-sequences", "--untied"):
        assert flag in text
    assert str(ROOT) not in text


def test_the_python_interface_is_that_of_the_docstrings(site):
    text = page(site, "python.html")
    for name in (
        "threshold_search.api.find_threshold",
        "visualizations.results.load_results",
        "training.spec.ModelSpec",
        "training.protocol.Protocol.learning_rate",
    ):
        assert f'id="{name}"' in text
    assert not re.search(r":(class|func|meth):", text)


def test_formulas_are_mathml(site):
    text = page(site, "docs/theory.html")
    source = (ROOT / "docs" / "theory.md").read_text()
    assert text.count("<math") >= source.count("```math") + source.count("$") // 4
    assert "arithmatex" not in text


def test_a_link_that_leads_nowhere_fails(tmp_path):
    copy = checkout(tmp_path / "copy", "tests", "benchmarks")
    tour = copy / "docs" / "tour.md"
    tour.write_text(tour.read_text() + "\n[a](missing.md) [b](theory.md#no-such-heading)\n")
    ended = build(copy, tmp_path / "site")
    assert ended.returncode == 1
    assert "missing.md" in ended.stderr
    assert "no-such-heading" in ended.stderr
