"""How likely a published threshold is, if the probe of that size is asked once: a table."""

from __future__ import annotations

from study.comparison import every_published_row
from threshold_search.log.results_folder import DEFAULT_FOLDER
from visualizations.markdown import interval_text, markdown, number
from visualizations.results import load_probes, select
from visualizations.success import success_rates

# Published first failing sizes that a search asks for early, most of them multiples of 32, with
# neighbours: model, width, layers, heads, size as published, sizes.
ASKED = (
    ("mlp", 41, 0, None, 224, (224,)),
    ("mlp", 41, 2, None, 416, (415, 416, 417)),
    ("mlp", 149, 1, None, 1728, (1727, 1728)),
    ("mlp", 447, 1, None, 3648, (3647, 3648)),
    ("transformer", 64, 1, 16, 31, (31,)),
)
PROBES = DEFAULT_FOLDER / "success"


def unlucky_table() -> str:
    """Shares of many probes at published first failing sizes, beside what searches find."""
    rates = success_rates(select(load_probes(PROBES)))
    known = every_published_row()
    rows = []
    for model, width, layers, heads, published, sizes in ASKED:
        shape = (known["model"] == model) & (known["num_layers"] == layers)
        if layers:
            shape &= known["hidden_size"] == width
        if heads is not None:
            shape &= known["num_heads"] == heads
        row = known[shape & (known["published_mean"] == published)].iloc[0]
        own = rates[
            (rates["model"] == model)
            & (rates["num_parameters"] == row["num_parameters"])
            & (rates["num_layers"] == layers)
        ]
        if heads is not None:
            own = own[own["num_heads"] == heads]
        name = f"{model} {row['hidden_size']} x {layers}" if layers else f"{model}, no hidden layer"
        if heads is not None:
            name += f", {heads} heads"
        ours = f"{number(row['ours_mean'])} ({row['repeats']})"
        for rate in own[own["n"].isin(sizes)].sort_values("n").itertuples(index=False):
            share = f"{rate.share:.3f}{interval_text(rate.low, rate.high)}"
            done = f"{rate.memorized} of {rate.probes}"
            rows.append([name, f"{published:,}", f"{rate.n:,}", done, share, ours])
    if not rows:
        return "Not measured yet.\n"
    headings = ["configuration", "published first failing size", "size", "memorized all of it"]
    ours = "ours, mean first failing size (searches)"
    return markdown([*headings, "share (95 % interval)", ours], rows)
