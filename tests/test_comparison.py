"""The tables of ours beside the published numbers, from result CSVs made up for the tests."""

import math

import pytest
from documents import cells
from made_results import HEADS_8, MLP_1, MLP_4, MLP_30K, row_of, write_partial, write_results

from study.folder import StudyFolder
from study.row_tables import published_table
from threshold_search.log.layout import result_layout
from threshold_search.models import MODELS
from training.errors import UserError
from training.probe import BITS_VERSION


@pytest.fixture
def partial(tmp_path):
    return write_partial(tmp_path)


def test_comparison_table_by_hand(partial):
    table = StudyFolder(partial).published_rows
    assert len(table) == 69
    row = row_of(table, MLP_1)
    assert (row["repeats"], row["ours_mean"], row["ours_median"]) == (3, 480, 500)
    assert row["ours_std"] == pytest.approx(72.111, abs=1e-3)
    assert row["threshold_mean"] == 479
    assert row["bits_per_parameter"] == pytest.approx(479 * 33.21928 / 9949, rel=1e-6)
    assert (row["published_mean"], row["published_median"], row["published_std"]) == (467, 467, 0)
    assert row["ratio"] == pytest.approx(480 / 467)
    row = row_of(table, MLP_30K)
    assert row["repeats"] == 0
    assert all(
        math.isnan(row[name])
        for name in ("ours_mean", "ours_median", "ours_std", "threshold_mean", "ratio")
    )
    row = row_of(table, HEADS_8)
    assert (row["repeats"], row["ours_mean"], row["ours_median"]) == (3, 32, 30)
    assert row["ratio"] == pytest.approx(32 / 17)


def test_the_table_of_published_rows_as_text(tmp_path):
    path = write_results(tmp_path, "mlp", [(MLP_1, [400, 500, 540]), (MLP_4, [7]), (MLP_30K, [9])])
    path.write_text(path.read_text().replace(",8,9,", ",8,,"))
    rows = [cells(line) for line in published_table(StudyFolder(tmp_path), "mlp").splitlines()[2:]]
    assert len(rows) == 18
    assert rows[0][2:] == ["10,100", "not measured", "-", "224 ± 0", "-"]
    assert rows[1] == [
        *("1", "mlp 49 x 1 (budget 10,000)", "9,949", "480 ± 72 (3)", "301 to 659"),
        *("467 ± 0", "1.60"),
    ]
    assert rows[4][3:] == ["7 (1)", "-", "21.6 ± 41.2", "0.0197"]
    assert rows[7][3:] == ["at least 9 (1)", "-", "1,728 ± 0", "at least 0.00884"]


def test_rows_of_other_architectures_and_budgets_are_left_out(tmp_path):
    other = {**MLP_1, "hidden_size": 50}
    asked_by_width = {**MLP_1, "budget": 9949}
    write_results(tmp_path, "mlp", [(other, [3]), (asked_by_width, [4])])
    assert (StudyFolder(tmp_path).published_rows["repeats"] == 0).all()


GOOD_ROW = f"mlp,paper,{BITS_VERSION},10000,9949,49,1,0,0,{{}},False,9,1.5\n"
HEADER = ",".join(result_layout(MODELS["mlp"]).old_columns) + "\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("n,threshold\n2,3\n", "layout"),
        (HEADER + GOOD_ROW.format("many,8"), "line 2: threshold"),
        (HEADER + GOOD_ROW.format("7,8") + "mlp,paper,10000\n", "line 3: 3 fields"),
        (HEADER + GOOD_ROW.format("7,9"), "line 2: threshold and first_failure"),
        (HEADER + GOOD_ROW.format("-1,0"), "line 2: threshold"),
        (HEADER + 2 * GOOD_ROW.format("7,8"), "line 3: repeats"),
        (HEADER + GOOD_ROW.format("7,8").replace("mlp", "transformer"), "line 2: model"),
    ],
)
def test_malformed_csv(tmp_path, content, message):
    path = tmp_path / "mlp_results.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        published_table(StudyFolder(tmp_path))
    assert str(path) in str(error.value)


def test_a_file_that_is_no_text_and_one_that_is_a_folder(tmp_path):
    path = tmp_path / "mlp_results.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"mlp_results\.csv"):
        published_table(StudyFolder(tmp_path))
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"cannot read .*mlp_results\.csv"):
        published_table(StudyFolder(tmp_path))
