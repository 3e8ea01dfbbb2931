"""Protocol settings in which every engine must do as the reference loop does: one list of them."""

from mlp_experiments.mlp_utils import MLPArchitecture
from training.probe import Probe
from transformer_experiments.decoder_only_utils import DecoderOnlyArchitecture
from transformer_experiments.transformer_utils import TransformerArchitecture

# Small models, and how much they train on: with batches of 32 an epoch has 2, 3 and 1 steps.
ARCHITECTURES = [MLPArchitecture(49, 1), TransformerArchitecture(16, 20, 2, 1)]
DECODER_ONLY = DecoderOnlyArchitecture(16, 20, 2, 1)
SIZES = (45, 70, 20)

# By name: what probe_of takes besides the architecture and n.
SETTINGS = {
    "linear, warm-up": {"warmup_epochs": 3, "max_epochs": 12},
    "cosine": {"schedule": "cosine", "max_epochs": 12},
    "cosine, warm-up": {"schedule": "cosine", "warmup_epochs": 2, "max_epochs": 12},
    "constant": {"schedule": "constant", "max_epochs": 12},
    "constant, warm-up": {"schedule": "constant", "warmup_epochs": 2, "max_epochs": 12},
    "no plateau stop": {"patience": 0, "learning_rate": 1e-7, "max_epochs": 12},
    "a plateau stop": {"patience": 1, "learning_rate": 1e-7, "max_epochs": 12},
    # The last epoch, which is evaluated too, is not one of every three.
    "every third epoch": {"evaluation_interval": 3, "max_epochs": 11},
    "every third epoch, a plateau stop": {
        **{"evaluation_interval": 3, "patience": 1, "learning_rate": 1e-7, "max_epochs": 12},
    },
    # They end the run within an epoch, where the learning rate ends too.
    "steps": {"max_steps": 7, "max_epochs": 12},
    "steps, no end in sight": {"max_steps": 10**9, "max_epochs": 4},
    "steps, cosine, warm-up": {
        **{"max_steps": 10, "schedule": "cosine", "warmup_epochs": 2, "max_epochs": 12},
    },
    "steps, every third epoch": {"max_steps": 10, "evaluation_interval": 3, "max_epochs": 12},
    "steps, dropout": {"max_steps": 7, "max_epochs": 12, "dropout": 0.2},
    "orthogonal": {"init": "orthogonal", "max_epochs": 12},
    "first perfect": {
        **{"verdict": "first_perfect", "patience": 0, "schedule": "constant", "max_epochs": 27},
    },
    "another attempt": {"attempt": 1, "max_epochs": 12},
}

# What the tables of losses, optimisers and dtypes have besides.
ENTRIES = {
    "margin": {"loss": "margin"},
    "sgd": {"optimizer": "sgd", "learning_rate": 0.1},
    "muon": {"optimizer": "muon"},
    "soap": {"optimizer": "soap", "soap_interval": 2},
    "float64": {"dtype": "float64"},
    "margin, sgd, float64": {
        **{"loss": "margin", "optimizer": "sgd", "dtype": "float64", "dropout": 0.1},
    },
}


def probe_of(architecture, n, repeat=0, attempt=0, **changes):
    """Return a probe of the architecture's task; ``changes`` are those of its paper's protocol."""
    task = {name: getattr(architecture, name) for name in ("vocab_size", "seq_len")}
    return Probe(architecture, architecture.spec.protocol(**task, **changes), 0, repeat, n, attempt)


def perfect_but_not_lowest(verdict):
    """Return a probe that ends with a perfect epoch, whose loss is not the lowest of the run."""
    architecture = TransformerArchitecture(8, 8, 2, 1, vocab_size=2, seq_len=3)
    changes = {"learning_rate": 0.05, "max_epochs": 60, "verdict": verdict}
    return probe_of(architecture, 4, repeat=15, **changes)
