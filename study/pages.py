"""Write summary.csv of a results folder, and from its searches the tables of the documents.

    python study/pages.py
    python study/pages.py --check  # writes nothing; status 1 if a file would change
    python study/pages.py --results-dir runs/mine  # the same tables of these searches

A document has tables between the lines <!-- table: NAME --> and <!-- end -->; what is between them
is written anew. The documents are about results/: of another folder every table goes into its
tables.md instead. summary.csv has one row per configuration and protocol.
"""

from __future__ import annotations

import functools
import io
import operator
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

if __name__ == "__main__":  # this checkout's code, whichever one the environment has installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from command_line.parser import begin

    begin()

import pandas as pd

from command_line.files import write_whole
from command_line.parser import Parser, run, user_path
from study import ablations, chance_tables, claim_tables, gpu_tables, other_protocols, row_tables
from study.comparison import every_configuration
from study.folder import StudyFolder
from training.errors import UserError
from visualizations.markdown import markdown
from visualizations.results import DEFAULT_FOLDER

CHECKOUT = Path(__file__).resolve().parent.parent
PAGES = (
    "README.md",
    "results/README.md",
    "docs/tour.md",
    "docs/replication.md",
    "docs/theory.md",
    "docs/reliability.md",
    "docs/scaling.md",
)

_BLOCK = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

Table = Callable[[StudyFolder], str]


def fill(text: str, tables: Mapping[str, Table], folder: StudyFolder) -> str:
    """Return ``text`` with the contents of its marked blocks replaced by the named tables.

    Raises :class:`UserError` for a block whose name is not among ``tables``.
    """

    def block(found: re.Match[str]) -> str:
        begin, name, end = found.groups()
        if name not in tables:
            raise UserError(f"there is no table {name!r}: there are {', '.join(tables)}")
        return f"{begin}{tables[name](folder)}{end}"

    return _BLOCK.sub(block, text)


def faults_table(folder: StudyFolder) -> str:
    """What the injected faults cost, by kind and executor."""
    rows = []
    for row in _benchmark(folder, "faults"):
        lost = f"{row['lost_largest']} ({row['lost_mean']:.2f})"
        equal = f"{row['results_equal']} of {row['searches']}"
        first = ("fault", "executor", "faults", "jobs_in_flight", "faults_that_lost")
        then = ("rows_missing", "trained_again", "left_running")
        rows.append([*(row[name] for name in first), lost, *(row[name] for name in then), equal])
    headings = [
        *("fault", "executor", "faults", "jobs in flight at most", "that lost something"),
        "probes lost at most (mean)",
        *("logged rows lost", "trained twice", "left running", "results equal"),
    ]
    return markdown(headings, rows)


def driver_costs_table(folder: StudyFolder) -> str:
    """What reading a log and handing out jobs cost the driver."""
    rows = [
        [
            row["what"],
            f"{row['count']:,}",
            f"{row['cpu_seconds']:.2f} ({row['least']:.2f} to {row['most']:.2f})",
            f"{row['cpu_ms_each']:.2g}",
        ]
        for row in _benchmark(folder, "driver_costs")
    ]
    seconds = "CPU seconds, median (least to most)"
    return markdown(["what the driver does", "times", seconds, "milliseconds each"], rows)


def _benchmark(folder: StudyFolder, name: str) -> list[dict]:
    """Return the rows of a benchmark's CSV, none where it has not run."""
    path = folder.path / "benchmarks" / f"{name}.csv"
    return pd.read_csv(path).to_dict("records") if path.is_file() else []


TABLES: Mapping[str, Table] = {
    "headline": row_tables.headline_table,
    "published-rows": row_tables.published_table,
    "architectures": row_tables.architectures_table,
    "c3": row_tables.same_network_table,
    "labels": row_tables.labels_table,
    "bits": row_tables.bits_table,
    "depth-0": row_tables.depth_0_table,
    "most-bits": row_tables.most_bits_table,
    "verdicts": claim_tables.verdicts_table,
    "in-short": claim_tables.in_short,
    **{
        name: functools.partial(claim_tables.parts_table, labels=labels)
        for name, labels in claim_tables.PARTS.items()
    },
    "c2-medians": chance_tables.medians_table,
    "independence": chance_tables.independence_table,
    "blocked": chance_tables.blocked_table,
    "reseeded": chance_tables.reseeded_table,
    "unlucky": chance_tables.unlucky_table,
    "ablation-alone": ablations.alone_table,
    "ablation-factorial": ablations.factorial_table,
    "converged": other_protocols.converged_table,
    "other-protocols": other_protocols.sizes_table,
    "gpu-rows": gpu_tables.machines_table,
    "gpu-effects": gpu_tables.effects_table,
    "faults": faults_table,
    "driver-costs": driver_costs_table,
}


def written(results_dir: Path | str = DEFAULT_FOLDER) -> dict[Path, str]:
    """Return what every file that this script writes should hold."""
    folder, out = StudyFolder(results_dir), io.StringIO()
    every_configuration(folder.searches).to_csv(out, index=False, float_format="%.6g")
    texts = {folder.path / "summary.csv": out.getvalue()}
    if folder.path.resolve() == DEFAULT_FOLDER.resolve():
        pages = [CHECKOUT / name for name in PAGES]
        return texts | {page: fill(page.read_text("utf-8"), TABLES, folder) for page in pages}
    parts = [f"## {name}\n\n{table(folder)}" for name, table in TABLES.items()]
    return {**texts, folder.path / "tables.md": "\n".join(parts)}


def main() -> None:
    """Write what has changed, or say what would."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--results-dir",
        type=user_path,
        default=DEFAULT_FOLDER,
        metavar="DIR",
        help="folder of the results CSVs",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; status 1 if a file would change"
    )
    args = parser.parse_args()
    changed = [
        (path, text)
        for path, text in written(args.results_dir).items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    for path, text in changed:
        print(path.relative_to(CHECKOUT) if path.is_relative_to(CHECKOUT) else path)
        if not args.check:
            write_whole(path, operator.methodcaller("write", text.encode()))
    if args.check and changed:
        sys.exit(1)


if __name__ == "__main__":
    run(main)
