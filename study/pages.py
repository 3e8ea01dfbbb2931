"""Write results/summary.csv, and from it the tables of the documents.

    python study/pages.py
    python study/pages.py --check  # writes nothing; status 1 if a file would change

A document has tables, or sentences with numbers of the searches, between the lines
<!-- table: NAME --> and <!-- end -->; what is between them is written anew. summary.csv has one row
per configuration and protocol of the results folder.
"""

from __future__ import annotations

import functools
import io
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

if __name__ == "__main__":  # this checkout's code, whichever one the environment has installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from command_line.parser import begin

    begin()

import pandas as pd

from command_line.files import write_whole
from command_line.parser import Parser, run
from mlp_experiments.mlp_utils import SPEC as MLP
from study.ablations import ABLATION_TABLES
from study.architectures import at_true_budgets, side_by_side
from study.bisection import unlucky_table
from study.blocks import BLOCK_TABLES
from study.claim_tables import CLAIM_TABLES
from study.comparison import every_configuration, every_published_row, published
from study.gpu_tables import GPU_TABLES
from study.other_protocols import DEPTH_0, PROTOCOL_TABLES
from study.scaling import driver_costs_table
from study.sentences import SENTENCES
from study.study_tables import STUDY_TABLES
from threshold_search.log.results_folder import DEFAULT_FOLDER
from threshold_search.models import MODELS
from training.bits import BITS_VERSION
from training.errors import UserError
from visualizations.markdown import markdown
from visualizations.results import load_results, select

CHECKOUT = Path(__file__).resolve().parent.parent
SUMMARY = DEFAULT_FOLDER / "summary.csv"
PAGES = (
    "README.md",
    "results/README.md",
    "docs/tour.md",
    "docs/replication.md",
    "docs/theory.md",
    "docs/reliability.md",
    "docs/scaling.md",
)
HEADLINE = ((1, 49, 1, None), (3, 447, 1, None), (4, 32, 1, 4))  # table, width, layers, heads
HEADINGS = (
    "configuration",
    "true parameters",
    "ours, mean ± std (repeats)",
    "95 % interval",
    "published",
    "bits per parameter (ours)",
)

_BLOCK = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(text: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """Return ``text`` with the contents of its marked blocks replaced by the named tables.

    Raises :class:`UserError` for a block whose name is not among ``tables``.
    """

    def block(found: re.Match[str]) -> str:
        begin, name, end = found.groups()
        if name not in tables:
            raise UserError(f"there is no table {name!r}: there are {', '.join(tables)}")
        return f"{begin}{tables[name]()}{end}"

    return _BLOCK.sub(block, text)


def headline_table() -> str:
    """Three published rows: ours beside the published numbers."""
    table = _published_rows()
    rows = []
    for number, width, layers, heads in HEADLINE:
        found = table[
            (table["table"] == number)
            & (table["hidden_size"] == width)
            & (table["num_layers"] == layers)
            & (table["num_heads"].isna() if heads is None else table["num_heads"] == heads)
        ].iloc[0]
        rows.append([_configuration(found), *_numbers(found)])
    return markdown(HEADINGS, rows)


def published_table() -> str:
    """Every published row, ours beside it."""
    rows = [
        [row["table"], _configuration(row), *_numbers(row)]
        for _, row in _published_rows().iterrows()
    ]
    return markdown(["table", *HEADINGS], rows)


def architectures_table() -> str:
    """All models at equal true numbers of parameters."""
    table = side_by_side(at_true_budgets(select(load_results())), list(MODELS))
    headings = ["parameters", "layers", "heads", *MODELS]
    rows = [[f"{row[0]:,}", *row[1:]] for row in table.itertuples(index=False, name=None)]
    return markdown(headings, rows)


def depth_0_table() -> str:
    """The MLP without hidden layers: published, trained, and what the best weights would hold."""
    table = _published_rows()
    trained = table[(table["model"] == MLP.name) & (table["num_layers"] == 0)].iloc[0]
    others = every_configuration(DEPTH_0, BITS_VERSION)
    found = [("trained, published protocol", trained)]
    for name, word in (
        ("trained, `--protocol converged`", "max_epochs"),
        ("any, by linear program", "linear"),
    ):
        found.append((name, others[others["protocol"].str.contains(word)].iloc[0]))
    published = f"{trained['published_mean']:,g} ± {trained['published_std']:,g}"
    rows: list[list[str]] = [["published", published, "-", "-"]]
    for name, row in found:
        _, ours, interval, _, bits = _numbers(row)
        rows.append([name, ours, interval, bits])
    return markdown(
        ["weights", "mean ± std (repeats)", "95 % interval", "bits per parameter"], rows
    )


def most_bits_table() -> str:
    """Of every model the published row that held most per parameter."""
    table = _published_rows()
    best = table.loc[table.groupby("model", sort=False)["bits_per_parameter"].idxmax()]
    rows = [
        [_configuration(row), *(_numbers(row)[i] for i in (0, 1, 4))] for _, row in best.iterrows()
    ]
    headings = ["configuration", "true parameters", "mean ± std (repeats)", "bits per parameter"]
    return markdown(headings, rows)


def faults_table() -> str:
    """What the injected faults cost, by kind and executor."""
    table = pd.read_csv(DEFAULT_FOLDER / "benchmarks" / "faults.csv")
    rows = []
    for row in table.to_dict("records"):
        lost = f"{row['lost_largest']} ({row['lost_mean']:.2f})"
        equal = f"{row['results_equal']} of {row['searches']}"
        counts = (row[name] for name in ("rows_missing", "trained_again", "left_running"))
        rows.append(
            [
                row["fault"],
                row["executor"],
                row["faults"],
                row["jobs_in_flight"],
                row["faults_that_lost"],
                lost,
                *counts,
                equal,
            ]
        )
    headings = [
        *("fault", "executor", "faults", "jobs in flight at most", "that lost something"),
        "probes lost at most (mean)",
        *("logged rows lost", "trained twice", "left running", "results equal"),
    ]
    return markdown(headings, rows)


def _published_rows() -> pd.DataFrame:
    return every_published_row().assign(table=published()["table"])  # in the same order


def _configuration(row: pd.Series) -> str:
    name = f"{row['model']} {row['hidden_size']} x {row['num_layers']}"
    if pd.isna(row["num_heads"]):
        return f"{name} (budget {row['budget']:,})"
    heads = f"{row['num_heads']} head{'' if row['num_heads'] == 1 else 's'}"
    return f"{name}, d_ff {row['d_ff']:,}, {heads}"


def _numbers(row: pd.Series) -> list[str]:
    """True parameters, ours, interval, published, bits per parameter."""
    parameters = f"{row['num_parameters']:,}"
    published = f"{row['published_mean']:,g} ± {row['published_std']:,g}"
    if row["repeats"] == 0:
        return [parameters, "not measured", "-", published, "-"]
    if row["repeats"] == 1:
        ours, interval = f"{row['ours_mean']:,.0f} (1)", "-"
    else:
        ours = f"{row['ours_mean']:,.0f} ± {row['ours_std']:,.0f} ({row['repeats']})"
        interval = f"{_whole(row['ours_low'])} to {_whole(row['ours_high'])}"
    bits = f"{row['bits_per_parameter']:#.3g}"
    return [parameters, ours, interval, published, bits]


def _whole(value: float) -> str:
    return f"{round(value):,}"


TABLES: Mapping[str, Callable[[], str]] = {
    "headline": headline_table,
    "published-rows": published_table,
    "architectures": architectures_table,
    **CLAIM_TABLES,
    **STUDY_TABLES,
    **BLOCK_TABLES,
    **ABLATION_TABLES,
    **PROTOCOL_TABLES,
    **GPU_TABLES,
    "unlucky": unlucky_table,
    "depth-0": depth_0_table,
    "most-bits": most_bits_table,
    "faults": faults_table,
    "driver-costs": driver_costs_table,
    **SENTENCES,
}


def written() -> dict[Path, str]:
    """Return what every file that this script writes should hold."""
    out = io.StringIO()
    every_configuration(bits=BITS_VERSION).to_csv(out, index=False, float_format="%.6g")
    texts = {SUMMARY: out.getvalue()}
    for name in PAGES:
        path = CHECKOUT / name
        texts[path] = fill(path.read_text(encoding="utf-8"), TABLES)
    return texts


def _write(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def main() -> None:
    """Write what has changed, or say what would."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; status 1 if a file would change"
    )
    is_check = parser.parse_args().check
    changed = [
        (path, text)
        for path, text in written().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    for path, text in changed:
        print(path.relative_to(CHECKOUT))
        if not is_check:
            write_whole(path, functools.partial(_write, text.encode()))
    if is_check and changed:
        sys.exit(1)


if __name__ == "__main__":
    run(main)
