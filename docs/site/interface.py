"""The page of the Python interface: which objects it has; their docstrings say the rest."""

from __future__ import annotations

from collections.abc import Mapping

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Thresholds and single probes": ("threshold_search.api", "threshold_search.options.Options"),
    "Networks": (
        "mlp_experiments.mlp_utils.MLPArchitecture",
        "transformer_experiments.transformer_utils.TransformerArchitecture",
        "transformer_experiments.decoder_only_utils.DecoderOnlyArchitecture",
    ),
    "Protocol, probe, outcome, errors": (
        "training.protocol.Protocol",
        "training.presets.PRESETS",
        "training.probe",
        "training.errors",
    ),
    "Results": (
        "visualizations.results",
        "visualizations.summary",
        "study.comparison",
        "visualizations.success",
    ),
    "Figures": (
        "visualizations.threshold_lines.threshold_figure",
        "visualizations.search_figure",
        "visualizations.history",
        "visualizations.figures.save",
    ),
    "Data": ("dataset.synthetic_generator",),
    "A model of your own": ("training.spec", "training.module"),
}


def interface_page() -> str:
    """Return the page as mkdocstrings reads it."""
    parts = [
        "# Python interface\n",
        "Everything imports from the root of the checkout, or anywhere after the installation. "
        "Sizes are numbers of sequences, losses nats per token, times seconds.\n",
    ]
    for title, names in SECTIONS.items():
        parts.append(f"## {title}\n")
        parts += [f"::: {name}\n" for name in names]
    return "\n".join(parts)
