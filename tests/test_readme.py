"""The README's headline table against the committed results."""

import re

import pytest
from scripts import ROOT

from visualizations.comparison import comparison_table

ROWS = [
    [cell.strip() for cell in line.strip("|\n").split("|")]
    for line in (ROOT / "README.md").read_text().splitlines()
    if re.match(r"\| (MLP|transformer)\b.*\|.*±", line)
]


def shape_of(configuration):
    """Return the model, and the columns that a configuration's name fixes."""
    if found := re.match(r"transformer d = (\d+), (\d+) layers?, (\d+) heads?", configuration):
        size, layers, heads = map(int, found.groups())
        return "transformer", {"hidden_size": size, "num_layers": layers, "num_heads": heads}
    found = re.match(r"MLP (\d+) x (\d+)", configuration)
    size, layers = map(int, found.groups()) if found else (0, 0)
    return "mlp", {"hidden_size": size, "num_layers": layers}


def assert_rounded(text, value):
    """``text`` is ``value`` to as many places as it shows."""
    text = text.replace(",", "")
    places = len(text.partition(".")[2])
    assert abs(float(text) - value) <= 0.5001 * 10**-places, (text, value)


def test_the_table_is_there():
    assert len(ROWS) == 12


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_says_what_the_results_say(row):
    configuration, parameters, ours, published, bits = row
    model, shape = shape_of(configuration)
    table = comparison_table(model)
    for column, value in shape.items():
        table = table[table[column] == value]
    result = table.iloc[0]  # without hidden layers, every budget has the same searches
    assert int(parameters.replace(",", "")) == result["num_parameters"]
    assert result["repeats"] == 5
    for text, who in ((ours, "ours"), (published, "published")):
        mean, std = text.split("±")
        assert_rounded(mean, result[f"{who}_mean"])
        assert_rounded(std, result[f"{who}_std"])
    assert_rounded(bits, result["bits_per_parameter"])
