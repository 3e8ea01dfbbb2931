"""Do the tests notice a wrong line? One plausible slip after another, over all rooms.

    python tests/seeded_faults.py > faults.csv           (half an hour of one core)
    python tests/seeded_faults.py --only rejection holm

A fault is a text that the code has exactly once, wherever its file is, and what replaces it. In a
copy of the checkout the tests whose file names have a word of the room's run first, then those that
name the faulty module, up to the first that fails. That one has to pass once the fault is out
again. Prints a row per fault; exit status 1 if any was not caught.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

LIMIT = "900"  # seconds for the tests of one fault
# [room] words of test files' names, then name: text => replacement.
FAULTS = """
[dataset] generator
prefix: rows = max(FIRST_DRAW, len(sequences)) => rows = max(FIRST_DRAW, count - len(sequences))
first rows: sequences[np.sort(first)] => sequences[first]
[dataset] random_stream
rejection: values[values <= last] => values[values <= last + 1]
logarithm: small = m < SQRT_HALF => small = m < 0.6
[training] schedule
decay: (total - step) / (total - warmup) => (total - step - 1) / (total - warmup)
warm-up: step / warmup => (step + 1) / warmup
[training] stopping
improvement: self._best - loss > self => self._best - loss >= self
patience: .patience <= self._without_improvement => .patience < self._without_improvement
last evaluation: interval == 0 or self.epochs >= self._last_epoch => interval == 0
[training] protocol bits
range: 0 <= self.beta1 < 1 => 0 <= self.beta1 <= 1
mask rate: min(round(rate * UINT16_LEVELS) => min(int(rate * UINT16_LEVELS)
[models] models
mlp count: (layers - 1) * h * h + layers * h => layers * h * h + layers * h
activation: dropout(F.relu(linear(x))) => dropout(linear(x))
memory: self.multihead_attn(x, memory, None) => self.multihead_attn(x, x, None)
[models] decoder_only
rotation: second * cosine + first * sine => second * cosine - first * sine
residual: DEVIATION / math.sqrt(2 * len(blocks)) => DEVIATION / math.sqrt(len(blocks))
final norm: count += 2 * d => count += d
feed-forward: max(1, 1 + round((params - smallest) => max(1, round((params - smallest)
[engines] cpus memory_limits
quota: math.ceil(quota / period) => quota // period
cached: limit[0] - max(0, used[0] - cached) => limit[0] - used[0]
[engines] stacked vmap
steps done: self._steps_done += stepping => self._steps_done += 1
padding row: weight.detach(), weight) => weight, weight.detach())
[engines] separability
dual: np.maximum(-program => np.maximum(program
[native] native
relu: y[i] <= 0 ? 0.0f : gradient[i] => y[i] < 0 ? 0.0f : gradient[i]
norm: sum_lanes(squares) / float(columns) + => sum_lanes(squares) / float(columns - 1) +
mask site: std::ptrdiff_t(layer) * batch_size_ * hidden_ => std::ptrdiff_t(layer) * count * hidden_
[command_line] bad_input signals
zero layers: if v is not None and v is not False => if v
signal: return 128 + _received => return _received
[threshold_search] search plan driver
first failure: return Bounds(low - 1, low) => return Bounds(low, low + 1)
bisection: high = middle => high = middle - 1
[threshold_search] shards
shard: % count == index - 1 => % count == index
[threshold_search] bad_input edited_files
contradiction: any(memorized and accuracy != 1.0 for => any(memorized and accuracy == 0.0 for
line number: yield reader.line_num, fields => yield reader.line_num - 1, fields
changed log: found.st_dev, found.st_ino, found.st_size => found.st_dev, found.st_ino
[visualizations] summary success_rate
interval: * summary["std"] / np.sqrt(n) => * summary["std"] / n
score: proportion_ci(CONFIDENCE, "wilson") => proportion_ci(CONFIDENCE, "exact")
[study] comparison effects assessment
ratio: table["ours_mean"] / table["published => table["ours_median"] / table["published
holm: np.arange(len(p), 0, -1) => np.arange(1, len(p) + 1)
robust: cov_type="HC3" => cov_type="HC1"
"""


def failing(checkout: Path, tests: Iterable[Path | str]) -> str | None:
    """Run pytest up to the first failure; return the test that failed, or None."""
    command = ["timeout", LIMIT, sys.executable, "-m", "pytest", "-x", "-q", *tests]
    own = {"PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "300"}
    ended = subprocess.run(
        command, cwd=checkout, env={**os.environ, **own}, capture_output=True, text=True
    )
    test = re.search(r"^(?:FAILED|ERROR) (\S+::\S+)", ended.stdout, re.MULTILINE)
    return test[1] if test else f"status {ended.returncode}" if ended.returncode else None


def noticed(checkout: Path, path: Path, words: Sequence[str]) -> str | None:
    """Return the test that fails while ``path`` is faulty, or None."""
    if path.suffix != ".py":
        subprocess.run([sys.executable, checkout / "engines/native/build.py"], check=True)
    tests = {file: file.read_text() for file in sorted((checkout / "tests").rglob("test_*.py"))}
    first = dict.fromkeys(file for word in words for file in tests if word in file.name)
    others = [f for f in tests if f not in first and f"{path.stem} import" in tests[f]]
    return (first and failing(checkout, first)) or (others and failing(checkout, others)) or None


def main() -> None:
    """Copy the checkout, seed every fault alone, print who noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these faults alone")
    parser.add_argument("--checkout", type=Path, default=Path(__file__).parent.parent)
    args = parser.parse_args()
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(["fault", "room", "file", "caught", "test", "seconds"])
    missed, room, words = 0, "", [""]
    with tempfile.TemporaryDirectory() as folder:
        left = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "runs")
        copy = shutil.copytree(args.checkout, Path(folder, "checkout"), ignore=left)
        engines = {path: path.read_bytes() for path in copy.glob("engines/native/*.so")}
        is_code = re.compile(r"(?!tests/|benchmarks/).*\.(py|cpp|h)")
        code = [p for p in copy.rglob("*") if is_code.fullmatch(str(p.relative_to(copy)))]
        for line in FAULTS.strip().splitlines():
            if line.startswith("["):
                room, *words = line[1:].replace("]", "").split()
                continue
            name, _, change = line.partition(": ")
            if args.only and name not in args.only:
                continue
            begin, (old, new) = time.monotonic(), change.split(" => ")
            places = [path for path in code for _ in range(path.read_text().count(old))]
            if len(places) != 1:
                sys.exit(f"{name}: the code has {old!r} {len(places)} times")
            path, text = places[0], places[0].read_text()
            path.write_text(text.replace(old, new))
            test = noticed(copy, path, words)
            path.write_text(text)
            for engine, content in engines.items():
                engine.write_bytes(content)
            alone = test and failing(copy, [test.partition("[")[0]]) is None
            missed += not alone
            file, seconds = path.relative_to(copy), round(time.monotonic() - begin)
            rows.writerow([name, room, file, "yes" if alone else "no", test, seconds])
            sys.stdout.flush()
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
