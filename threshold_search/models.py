"""The models that ``--model`` knows by name: one line each. Imports no torch."""

from __future__ import annotations

from mlp_experiments import mlp_utils
from training.errors import UserError
from training.protocol import resolve
from training.spec import ModelSpec
from transformer_experiments import decoder_only_utils, transformer_utils

MODELS = {
    spec.name: spec
    for spec in (
        mlp_utils.SPEC,
        transformer_utils.SPEC,
        decoder_only_utils.SPEC,
    )
}


def find_spec(name: str) -> ModelSpec:
    """Return a registered model, or the one that ``package.module:SPEC`` names.

    Such a module is looked for where Python looks, and in the current folder. Raises
    :class:`UserError` if there is none.
    """
    if name in MODELS:
        return MODELS[name]
    spec = resolve(MODELS, name, "model", ModelSpec)
    if spec.name in MODELS:
        raise UserError(f"--model {name}: the name {spec.name!r} is a registered model's")
    return spec
