"""The recipe for a model in CONTRIBUTING.md, followed to the letter."""

import csv

from documents import fenced_blocks, shell_commands
from scripts import ROOT, run_script

CONTRIBUTING = ROOT / "CONTRIBUTING.md"


def test_the_model_of_the_recipe_can_be_searched(tmp_path):
    for block in fenced_blocks(CONTRIBUTING, "python"):
        name = block.splitlines()[0].removeprefix("# ")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(block)
    (command,) = (words for words in shell_commands(CONTRIBUTING) if "--model" in words)
    assert command[0] == "python"
    ended = run_script(ROOT / command[1], *command[2:], cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    folder = tmp_path / command[command.index("--results-dir") + 1]
    with (folder / "narrow_results.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["protocol"] == "paper engine=reference max_size=8"
    assert (int(row["num_parameters"]), int(row["width"])) == (904, 4)
    assert 0 <= int(row["threshold"]) <= 8
