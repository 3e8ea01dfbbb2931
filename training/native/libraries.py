"""The compiled libraries: what each is made of, and which of them a model needs.

Attention is the largest part of the transformer to compile, and no model needs all of its variants:
so each is a library of its own, which is handed to the transformer's. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.probe_types import Architecture

# Heads with fewer features than this are computed with other heads in the lanes of a vector.
WIDE_HEAD_DIM = 16
# Narrow heads for which there is a library that knows their size; all others share one.
KNOWN_HEAD_DIMS = (1, 2, 4, 8)

_OPTIMISE = ("-O2", "-ftree-vectorize")
# Compiles longer, gemm.cpp three times as long, and makes only the narrow attention faster.
_OPTIMISE_MORE = ("-O3",)


@dataclass(frozen=True)
class Library:
    """C++ ``sources`` (names without ending) that are compiled together, with these ``flags``."""

    sources: tuple[str, ...]
    flags: tuple[str, ...] = _OPTIMISE


def _narrow(head_dim: int) -> Library:
    sizes = (f"-DHEAD_DIM={head_dim}", f"-DWIDE_HEAD_DIM={WIDE_HEAD_DIM}")
    return Library(("attention_narrow",), (*_OPTIMISE_MORE, *sizes))


LIBRARIES = {
    "mlp": Library(("gemm", "model", "mlp")),
    "transformer": Library(("gemm", "model", "transformer")),
    "attention_wide": Library(("attention_wide",)),
    "attention_narrow": _narrow(0),
    **{f"attention_narrow_{size}": _narrow(size) for size in KNOWN_HEAD_DIMS},
    "test_doors": Library(("gemm", "test_doors")),
}
ONLY_FOR_TESTS = ("test_doors",)


def attention_library(head_dim: int) -> str:
    """Return the name of the library for heads of ``head_dim`` features."""
    if head_dim >= WIDE_HEAD_DIM:
        return "attention_wide"
    return f"attention_narrow_{head_dim}" if head_dim in KNOWN_HEAD_DIMS else "attention_narrow"


def libraries_of(architecture: Architecture) -> tuple[str, ...]:
    """Return the names of all libraries that training ``architecture`` needs."""
    if architecture.model == "mlp":
        return ("mlp",)
    sizes = architecture.columns()
    return ("transformer", attention_library(sizes["hidden_size"] // sizes["num_heads"]))
