"""The Markdown files: their fenced blocks, commands, tables and links."""

import re
import shlex

from scripts import ROOT

DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    and path.relative_to(ROOT).parts[0] not in ("runs", "build")
)


def name_of(path):
    """Return the path inside the project, for the ids of tests."""
    return path.relative_to(ROOT).as_posix()


def fenced_blocks(path, language):
    """Return the contents of the document's blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


def shell_commands(path):
    """Return the commands of the document's ``sh`` blocks, each as a list of words."""
    commands = []
    for block in fenced_blocks(path, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split("&&"):
                if words := shlex.split(part, comments=True):
                    commands.append(words)
    return commands


def links(path):
    """Return the targets of the document's links and pictures, without their anchors."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]


def cells(line):
    """Return what stands in a row of a table."""
    return [cell.strip() for cell in line.strip("|").split("|")]


def table_of(document, name):
    """Return the rows of a table that study/pages.py writes into a document."""
    text = (ROOT / document).read_text()
    block = re.search(rf"<!-- table: {name} -->\n(.*?)<!-- end -->", text, re.S)[1]
    return [cells(line) for line in block.splitlines()[2:]]


LINES = {name_of(path): path.read_text().splitlines() for path in DOCUMENTS}
PROSE = {name: " ".join(lines) for name, lines in LINES.items()}
