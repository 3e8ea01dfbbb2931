"""TEMPORARY stand-in until the real generator lands (it will be overwritten)."""
from dataclasses import dataclass
import numpy as np
@dataclass(frozen=True)
class Mappings:
    inputs: np.ndarray
    labels: np.ndarray
def max_mappings(vocab_size, seq_len):
    return vocab_size**seq_len // 2
def generate_mappings(n, vocab_size=10, seq_len=10, seed=0):
    g = np.random.default_rng(seed); rows = []; seen = set()
    while len(rows) < 2 * n:
        r = g.integers(0, vocab_size, seq_len)
        if tuple(r) not in seen: seen.add(tuple(r)); rows.append(r)
    rows = np.array(rows)
    return Mappings(rows[::2], rows[1::2])
