"""How likely a published threshold is, if the probe of that size is asked once: a table."""

from __future__ import annotations

from threshold_search.results_folder import DEFAULT_FOLDER
from visualizations.comparison import every_published_row
from visualizations.markdown import interval_text, markdown, number
from visualizations.results import load_probes, select
from visualizations.success import success_rates

# Published first failing sizes that a search asks for early, most of them multiples of 32: model,
# width, layers, heads, size.
ASKED = (
    ("mlp", 41, 0, None, 224),
    ("mlp", 41, 2, None, 416),
    ("mlp", 149, 1, None, 1728),
    ("mlp", 447, 1, None, 3648),
    ("transformer", 64, 1, 16, 31),
)
PROBES = DEFAULT_FOLDER / "success"


def unlucky_table() -> str:
    """Shares of many probes at published first failing sizes, beside what searches find."""
    rates = success_rates(select(load_probes(PROBES)))
    known = every_published_row()
    rows = []
    for model, width, layers, heads, size in ASKED:
        shape = (known["model"] == model) & (known["num_layers"] == layers)
        if layers:
            shape &= known["hidden_size"] == width
        if heads is not None:
            shape &= known["num_heads"] == heads
        row = known[shape & (known["published_mean"] == size)].iloc[0]
        own = rates[
            (rates["model"] == model)
            & (rates["n"] == size)
            & (rates["num_parameters"] == row["num_parameters"])
            & (rates["num_layers"] == layers)
        ]
        if heads is not None:
            own = own[own["num_heads"] == heads]
        if len(own) == 0:
            continue
        (rate,) = own.itertuples(index=False)
        share = f"{rate.share:.3f}{interval_text(rate.low, rate.high)}"
        fails = f"{1 - rate.share:.3f}{interval_text(1 - rate.high, 1 - rate.low)}"
        name = f"{model} {row['hidden_size']} x {layers}" if layers else f"{model}, no hidden layer"
        if heads is not None:
            name += f", {heads} heads"
        ours = f"{number(row['ours_mean'])} ({row['repeats']})"
        rows.append([name, size, f"{rate.memorized} of {rate.probes}", share, fails, ours])
    if not rows:
        return "Not measured yet.\n"
    headings = ["configuration", "published first failing size", "probes of it that memorized all"]
    ours = "ours, mean first failing size (searches)"
    return markdown([*headings, "share (95 % interval)", "chance that one probe fails", ours], rows)
