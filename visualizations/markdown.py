"""Tables in Markdown, and numbers as their cells have them."""

from __future__ import annotations

import math
from collections.abc import Sequence


def markdown(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table in Markdown, lines ending in a newline; without rows, words in its place."""
    if not rows:
        return "Not measured yet.\n"
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def number(value: float) -> str:
    """Return three significant digits without an exponent, "-" for NaN."""
    if math.isnan(value):
        return "-"
    if value == 0:
        return "0"
    value = float(f"{value:.3g}")  # 0.9999 has the digits of 1
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def counted(count: int, word: str) -> str:
    """Return "1 head" or "4 heads"."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def mean_text(mean: float, std: float, n: int, digits: int = 0) -> str:
    """Return "mean ± std (n)", of one the value alone; with so many digits after the point."""
    if n == 1:
        return f"{mean:,.0f} (1)"
    return f"{mean:,.{digits}f} ± {std:,.{digits}f} ({n})"


def interval_text(low: float, high: float) -> str:
    """Return what follows an estimate: its interval in brackets, nothing for NaN."""
    return "" if math.isnan(low) else f" ({number(low)} to {number(high)})"


def p_text(p: float) -> str:
    """Return a p-value in two significant digits, "not testable yet" for NaN."""
    if math.isnan(p):
        return "not testable yet"
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"
