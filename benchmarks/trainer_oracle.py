"""The oracle of the reference loop: the same training run, done by ``transformers.Trainer``."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, Sampler
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from training.loop import EpochRecord, TrainingResult
from training.protocol import Protocol

SCHEDULERS = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


class WithLoss(nn.Module):
    """A model as the Trainer wants it: it computes its own loss."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the mean cross-entropy and the logits (B, T, V)."""
        logits = self.model(tokens)  # (B, T, V)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return {"loss": loss, "logits": logits}


class Mappings(Dataset):
    """Rows of (N, T) tokens and labels as dictionaries."""

    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        self.inputs, self.labels = inputs, labels

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return {"tokens": self.inputs[row], "labels": self.labels[row]}


class GivenOrders(Sampler):
    """One given permutation per epoch instead of the Trainer's own shuffling."""

    def __init__(self, orders: Iterator[np.ndarray], n: int) -> None:
        self.orders, self.n = orders, n
        self.epochs = 0

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        self.epochs += 1
        return iter(next(self.orders).tolist())


class OrderedTrainer(Trainer):
    """The Trainer; with a ``sampler``, the order of its batches handed in."""

    def __init__(self, *args, sampler: GivenOrders | None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.given_sampler = sampler

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        return self.given_sampler or super()._get_train_sampler(train_dataset)


class StopWhenPerfect(TrainerCallback):
    """Ends the training at the first evaluation without a wrong token, keeps its weights."""

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] | None = None

    def on_evaluate(self, args, state, control, metrics, **kwargs) -> None:
        """Look at the accuracy just measured."""
        if metrics["eval_accuracy"] == 1.0:
            control.should_training_stop = True
            self.weights = copy.deepcopy(kwargs["model"].state_dict())


class EveryFewEpochs(TrainerCallback):
    """Leaves out the evaluations between every ``interval``-th epoch, but for the last."""

    def __init__(self, interval: int) -> None:
        self.interval = interval

    def on_epoch_end(self, args, state, control, **kwargs) -> None:
        """Take back what the Trainer's own rule has just asked for."""
        is_last = state.global_step >= state.max_steps
        if round(state.epoch) % self.interval and not is_last:
            control.should_evaluate = control.should_save = control.should_log = False


def token_accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Return the share of correct tokens."""
    correct = prediction.predictions.argmax(-1) == prediction.label_ids
    return {"accuracy": float(correct.mean())}


@dataclass(frozen=True)
class OracleRun:
    """What the Trainer did: its evaluations, its verdict after the restore, those weights."""

    records: list[EpochRecord]
    result: TrainingResult
    weights: dict[str, Tensor]


def train_with_trainer(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    protocol: Protocol,
    batch_orders: Iterator[np.ndarray] | None,
    folder: Path,
    **changes: object,
) -> OracleRun:
    """Train a copy of ``model`` with the Trainer; checkpoints go to ``folder``.

    Without ``batch_orders`` the Trainer shuffles by itself. ``changes`` replace fields of its
    TrainingArguments.
    """
    patience = protocol.patience or protocol.max_epochs + 1
    early_stopping = EarlyStoppingCallback(patience, protocol.min_delta)
    sampler = GivenOrders(batch_orders, len(inputs)) if batch_orders is not None else None
    data = Mappings(inputs, labels)
    steps = math.ceil(len(inputs) / protocol.batch_size)
    are_steps_fewer = 0 < protocol.max_steps < protocol.max_epochs * steps
    perfect = StopWhenPerfect()
    settings = {
        "output_dir": str(folder),
        "use_cpu": True,
        "optim": "adamw_torch",
        "learning_rate": protocol.learning_rate,
        "weight_decay": protocol.weight_decay,
        "adam_beta1": protocol.beta1,
        "adam_beta2": protocol.beta2,
        "adam_epsilon": protocol.epsilon,
        "max_grad_norm": protocol.grad_clip,
        "lr_scheduler_type": SCHEDULERS[protocol.schedule],
        "warmup_steps": protocol.warmup_epochs * steps,
        "num_train_epochs": protocol.max_epochs,
        "max_steps": protocol.max_steps if are_steps_fewer else -1,
        "per_device_train_batch_size": protocol.batch_size,
        "per_device_eval_batch_size": protocol.batch_size,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "logging_strategy": "epoch",
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
        "greater_is_better": False,
        "save_total_limit": 1,
        "save_only_model": True,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "report_to": "none",
        "disable_tqdm": True,
    }
    trainer = OrderedTrainer(
        WithLoss(copy.deepcopy(model)),
        TrainingArguments(**{**settings, **changes}),
        train_dataset=data,
        eval_dataset=data,
        compute_metrics=token_accuracy,
        callbacks=[early_stopping, perfect, EveryFewEpochs(protocol.evaluation_interval)],
        sampler=sampler,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    history = trainer.state.log_history
    rates = [row["learning_rate"] for row in history if "learning_rate" in row]
    evaluations = [row for row in history if "eval_loss" in row]
    records = [
        # The epoch that max_steps ends is a part of one.
        EpochRecord(math.ceil(row["epoch"]), row["eval_loss"], row["eval_accuracy"], rate)
        for row, rate in zip(evaluations, rates, strict=True)
    ]
    epochs = records[-1].epoch
    if sampler is not None:  # every epoch took exactly one of the given orders
        assert sampler.epochs == epochs

    if records[-1].accuracy == 1.0:
        stop_reason = "perfect"
    elif early_stopping.early_stopping_patience_counter >= patience:
        stop_reason = "plateau"
    else:
        assert trainer.state.global_step == trainer.state.max_steps
        stop_reason = "max_steps" if are_steps_fewer else "max_epochs"
    if protocol.verdict == "first_perfect" and perfect.weights is not None:
        trainer.model.load_state_dict(perfect.weights)
    verdict = trainer.evaluate()
    accuracy = verdict["eval_accuracy"]
    result = TrainingResult(
        memorized=accuracy == 1.0,
        accuracy=accuracy,
        loss=verdict["eval_loss"],
        epochs=epochs,
        stop_reason=stop_reason,
    )
    weights = {k: v.clone() for k, v in trainer.model.model.state_dict().items()}
    return OracleRun(records, result, weights)
