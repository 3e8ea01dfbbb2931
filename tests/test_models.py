"""Our models against torch's own, their sizes against the published tables, and the budgets."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Trainer

from mlp_experiments import mlp_utils
from mlp_experiments.mlp_utils import MLPArchitecture
from training.errors import UserError
from training.optimizers import parameter_groups
from transformer_experiments import transformer_utils as budgets
from transformer_experiments.transformer import Transformer
from transformer_experiments.transformer_utils import TransformerArchitecture

TABLES = Path(__file__).parents[1] / "study" / "published_tables.csv"
PUBLISHED = list(csv.DictReader(TABLES.open(newline="")))
SHAPES = [
    TransformerArchitecture(32, d_ff=380, num_heads=4, num_layers=1),
    TransformerArchitecture(24, d_ff=17, num_heads=3, num_layers=3),
    TransformerArchitecture(8, d_ff=5, num_heads=8, num_layers=2, vocab_size=3, seq_len=6),
]


class TorchTransformer(nn.Module):
    """The published model written with ``nn.TransformerDecoder``."""

    def __init__(self, shape: TransformerArchitecture, dropout: float = 0.0) -> None:
        super().__init__()
        size = shape.hidden_size
        self.token_embedding = nn.Embedding(shape.vocab_size, size)
        self.position_embedding = nn.Embedding(shape.seq_len, size)
        layer = nn.TransformerDecoderLayer(
            size, shape.num_heads, shape.d_ff, dropout, batch_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, shape.num_layers)
        self.head = nn.Linear(size, shape.vocab_size)

    def forward(self, tokens: Tensor, causal: bool = True) -> Tensor:
        seq_len = tokens.shape[1]
        x = self.token_embedding(tokens) + self.position_embedding(torch.arange(seq_len))
        later = torch.ones(seq_len, seq_len, dtype=torch.bool).triu(1)
        return self.head(self.decoder(x, x, tgt_mask=later if causal else None))


def torch_name(name: str) -> str:
    return name.replace("layers.", "decoder.layers.", 1)


def same_weights(shape: TransformerArchitecture, dropout: float = 0.0):
    """Return (ours, torch's) with the same, everywhere random weights."""
    ours, theirs = shape.spec.build(shape, dropout), TorchTransformer(shape, dropout)
    with torch.no_grad():
        for parameter in ours.parameters():  # biases and norms too, and no two layers alike
            parameter.add_(0.1 * torch.randn_like(parameter))
    state = {torch_name(name): value for name, value in ours.state_dict().items()}
    theirs.load_state_dict(state)  # strict: not a name more or less
    return ours, theirs


def random_tokens(shape, rows: int) -> tuple[Tensor, Tensor]:
    size = (rows, shape.seq_len)
    return torch.randint(shape.vocab_size, size), torch.randint(shape.vocab_size, size)


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


# --- The transformer is nn.TransformerDecoder ------------------------------------------------


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_transformer_equals_torch(shape, dtype, training):
    torch.manual_seed(0)
    ours, theirs = (model.to(dtype).train(training) for model in same_weights(shape))
    tokens, labels = random_tokens(shape, rows=7)
    tolerance = {"rtol": 0, "atol": 1e-5 if dtype == torch.float32 else 1e-12}

    logits, expected = ours(tokens), theirs(tokens)
    assert logits.shape == (7, shape.seq_len, shape.vocab_size)
    torch.testing.assert_close(logits, expected, **tolerance)

    loss_of(logits, labels).backward()
    loss_of(expected, labels).backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[torch_name(name)], **tolerance)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_dropout_sits_where_torch_has_it(shape):
    torch.manual_seed(0)
    ours, theirs = (model.train() for model in same_weights(shape, dropout=0.1))
    tokens, _ = random_tokens(shape, rows=1)  # torch lays more rows out differently in memory
    # Both draw their masks in the same order, so one seed drops the same elements.
    for seed in range(5):
        torch.manual_seed(seed)
        dropped = ours(tokens)
        torch.manual_seed(seed)
        torch.testing.assert_close(dropped, theirs(tokens), rtol=0, atol=1e-5)
    assert not torch.allclose(dropped, ours.eval()(tokens), atol=1e-2)


def changed_positions(model: Transformer, position: int) -> list[bool]:
    """Return per position whether its logits depend on the input token at ``position``."""
    tokens = torch.randint(model.token_embedding.num_embeddings, (1, 6))
    other = tokens.clone()
    other[0, position] = (other[0, position] + 1) % model.token_embedding.num_embeddings
    with torch.no_grad():
        difference = (model(tokens) - model(other)).abs().amax(-1)[0]  # (T,)
    return (difference > 1e-6).tolist()


def test_causal_mask_is_on_self_attention_only():
    torch.manual_seed(0)
    shape = TransformerArchitecture(16, d_ff=8, num_heads=4, num_layers=2, seq_len=6)
    ours, theirs = same_weights(shape)
    ours.eval(), theirs.eval()
    # Cross-attention sees the whole input, so the last token reaches every output.
    assert changed_positions(ours, 5) == [True] * 6
    # Without it, a token reaches its own output and later ones only.
    for layer in ours.layers:
        nn.init.zeros_(layer.multihead_attn.out_proj.weight)
    assert changed_positions(ours, 5) == [False] * 5 + [True]
    assert changed_positions(ours, 2) == [False] * 2 + [True] * 4
    # And torch's model agrees only if its own self-attention is masked.
    tokens, _ = random_tokens(shape, rows=4)
    ours.load_state_dict({k.removeprefix("decoder."): v for k, v in theirs.state_dict().items()})
    assert torch.allclose(ours(tokens), theirs(tokens), atol=1e-5)
    assert not torch.allclose(ours(tokens), theirs(tokens, causal=False), atol=1e-2)


# --- The MLP is an nn.Sequential on flattened one-hot rows -----------------------------------


@pytest.mark.parametrize("num_layers", [0, 1, 2, 5])
def test_mlp_equals_sequential(num_layers):
    shape = MLPArchitecture(12 if num_layers else 0, num_layers, vocab_size=5, seq_len=4)
    torch.manual_seed(0)
    ours = shape.spec.build(shape, 0.0)
    widths = [20] + [12] * num_layers + [20]
    layers: list[nn.Module] = []
    for wide, narrow in itertools.pairwise(widths):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    theirs = nn.Sequential(*layers[:-1])
    same = zip(theirs.state_dict(), ours.state_dict().values(), strict=True)
    theirs.load_state_dict(dict(same))

    tokens, labels = random_tokens(shape, rows=9)
    one_hot = torch.zeros(9, 20)
    for row, sequence in enumerate(tokens.tolist()):
        for position, token in enumerate(sequence):
            one_hot[row, 5 * position + token] = 1.0
    logits, expected = ours(tokens), theirs(one_hot).reshape(9, 4, 5)
    assert torch.equal(logits, expected)
    loss_of(logits, labels).backward()
    loss_of(expected, labels).backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine.grad, other.grad)


# --- Sizes and budgets -----------------------------------------------------------------------


def built_size(architecture) -> int:
    return sum(
        parameter.numel() for parameter in architecture.spec.build(architecture, 0.0).parameters()
    )


def published_architecture(row: dict[str, str]):
    budget, layers = int(row["budget_label"]), int(row["num_layers"])
    if row["model"] == "mlp":
        return mlp_utils.solve(budget, layers)
    return budgets.solve(budget, int(row["num_heads"]), layers)


def row_name(row: dict[str, str]) -> str:
    heads = f" h{row['num_heads']}" if row["num_heads"] else ""
    return f"{row['model']} {row['budget_label']}{heads} x{row['num_layers']}"


@pytest.mark.parametrize("row", PUBLISHED, ids=row_name)
def test_published_configuration(row):
    architecture = published_architecture(row)
    assert architecture.hidden_size == int(row["hidden_size"])
    if row["model"] == "transformer":
        assert architecture.d_ff == int(row["d_ff"])
    assert architecture.num_parameters == int(row["true_parameters"])
    assert built_size(architecture) == int(row["true_parameters"])


def test_the_grids_are_the_published_rows():
    assert len(PUBLISHED) == 69
    rows = [
        (spec.name, budget, *values)
        for spec in (mlp_utils.SPEC, budgets.SPEC)
        for budget in spec.published_budgets
        for values in itertools.product(*spec.grid(budget).values())
    ]
    columns = ("budget_label", "num_layers", "num_heads")
    published = [(r["model"], *(int(r[name]) for name in columns if r[name])) for r in PUBLISHED]
    assert sorted(rows) == sorted(published)


@pytest.mark.parametrize("vocab_size, seq_len", [(10, 10), (3, 7)])
@pytest.mark.parametrize("num_layers", [1, 2, 5])
@pytest.mark.parametrize("params", [2_000, 123_456])
def test_mlp_width_is_the_nearest(params, num_layers, vocab_size, seq_len):
    best = mlp_utils.solve(params, num_layers, vocab_size, seq_len)
    error = abs(best.num_parameters - params)
    for step in (-1, 1):
        if best.hidden_size + step >= 1:
            width = best.hidden_size + step
            neighbour = MLPArchitecture(width, num_layers, vocab_size, seq_len)
            # The root is rounded, not the count, so allow the curvature of one width.
            assert error <= abs(neighbour.num_parameters - params) + num_layers


def smallest_budget(error: pytest.ExceptionInfo[UserError]) -> int:
    message = str(error.value)
    assert "smallest possible budget is" in message
    return int(message.rsplit(" ", 1)[1])


@pytest.mark.parametrize("num_layers", [1, 2, 5])
def test_mlp_budget_too_small(num_layers):
    with pytest.raises(UserError) as error:
        mlp_utils.solve(200, num_layers)
    smallest = smallest_budget(error)
    architecture = mlp_utils.solve(smallest, num_layers)
    assert built_size(architecture) == architecture.num_parameters == smallest
    with pytest.raises(UserError):
        mlp_utils.solve(smallest - 1, num_layers)


@pytest.mark.parametrize("params", [10_000, 64_000, 1_000_000])
@pytest.mark.parametrize("num_layers", [1, 3, 6])
@pytest.mark.parametrize("num_heads", [1, 3, 8])
def test_exact_budget_within_one_percent(params, num_heads, num_layers):
    shape = budgets.solve(params, num_heads, num_layers, exact_params=True)
    assert (shape.num_heads, shape.num_layers) == (num_heads, num_layers)
    assert shape.hidden_size % num_heads == 0
    assert abs(built_size(shape) - params) <= 0.01 * params
    if params >= 50_000:  # d_model moves in steps of the heads, so d_ff = 4d is met only nearly
        assert 2.5 <= shape.d_ff / shape.hidden_size <= 6


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize(
    "params, num_heads, fixed",
    [
        (128_000, 4, {"hidden_size": 48}),
        (300_000, 8, {"hidden_size": 64}),
        (500_000, 1, {"d_ff": 64}),
        (1_000_000, 1, {"d_ff": 200}),
    ],
)
def test_budget_with_one_dimension_fixed(params, num_heads, num_layers, fixed):
    shape = budgets.solve(params, num_heads, num_layers, **fixed)
    assert all(getattr(shape, name) == value for name, value in fixed.items())
    assert abs(built_size(shape) - params) <= 0.01 * params


def test_budget_between_two_sizes_names_the_nearest():
    # With d_ff fixed only d_model is free, and it moves in steps of the heads.
    with pytest.raises(UserError, match=r"the nearest has [0-9]+$") as error:
        budgets.solve(60_000, 4, 3, d_ff=64)
    nearest = int(str(error.value).rsplit(" ", 1)[1])
    shape = budgets.solve(nearest, 4, 3, d_ff=64)
    assert built_size(shape) == nearest
    for size in (shape.hidden_size - 4, shape.hidden_size + 4):
        other = TransformerArchitecture(size, 64, 4, 3)
        assert abs(nearest - 60_000) <= abs(other.num_parameters - 60_000)


def test_budget_with_both_dimensions_fixed():
    shape = budgets.solve(None, 4, 2, hidden_size=20, d_ff=7)
    assert shape == TransformerArchitecture(20, d_ff=7, num_heads=4, num_layers=2)


@pytest.mark.parametrize("num_heads, num_layers", [(1, 1), (4, 3), (64, 1)])
@pytest.mark.parametrize("fixed", [{}, {"hidden_size": 64}, {"d_ff": 5}])
def test_transformer_budget_too_small(num_heads, num_layers, fixed):
    with pytest.raises(UserError) as error:
        budgets.solve(60, num_heads, num_layers, **fixed)
    smallest = smallest_budget(error)
    shape = budgets.solve(smallest, num_heads, num_layers, exact_params=True, **fixed)
    assert built_size(shape) == shape.num_parameters == smallest
    assert all(getattr(shape, name) == value for name, value in fixed.items())
    with pytest.raises(UserError, match=f"smallest possible budget is {smallest}"):
        too_small = int(0.98 * smallest)
        budgets.solve(too_small, num_heads, num_layers, exact_params=True, **fixed)


@pytest.mark.parametrize(
    "params, arguments",
    [
        (32_000, {"heads": 0, "layers": 1}),
        (32_000, {"heads": 1, "layers": 0}),
        (32_000, {"heads": 1, "layers": 4}),  # no such published configuration
        (32_000, {"heads": 3, "layers": 1}),  # 3 does not divide 32
        (40_000, {"heads": 3, "layers": 1, "hidden_size": 32}),
        (40_000, {"heads": 1, "layers": 1, "d_ff": 0}),
        (40_000, {"heads": 1, "layers": 1, "d_ff": 4000}),  # steps of d too coarse
        (0, {"heads": 1, "layers": 1}),
        (None, {"heads": 1, "layers": 1, "d_ff": 8}),
    ],
)
def test_bad_budget_is_a_user_error(params, arguments):
    with pytest.raises(UserError):
        budgets.solve(params, **arguments)


# --- Weight decay ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "architecture", [MLPArchitecture(49, 1), MLPArchitecture(0, 0), *SHAPES], ids=lambda a: a.name
)
def test_weight_decay_groups_are_the_trainers(architecture):
    model = architecture.spec.build(architecture, 0.0)
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, weight_decay=0.01)
    decay = {names[p]: group["weight_decay"] for group in groups for p in group["params"]}
    decayed = Trainer.get_decay_parameter_names(None, model)
    assert decay == {name: 0.01 if name in decayed else 0.0 for name in names.values()}
    assert len(decay) == sum(len(group["params"]) for group in groups)
