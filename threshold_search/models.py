"""The models that ``--model`` knows by name: one line each. Imports no torch."""

from __future__ import annotations

import importlib
import os
import sys

from mlp_experiments import mlp_utils
from training.errors import UserError
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
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise UserError(f"no model {name!r}: give {', '.join(MODELS)} or package.module:SPEC")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # worker processes start with the same path
    try:
        module = importlib.import_module(module_name)
    except (ImportError, TypeError, ValueError) as error:  # TypeError: a relative name
        raise UserError(f"--model {name}: {error}") from None
    spec = getattr(module, attribute, None)
    if not isinstance(spec, ModelSpec):
        raise UserError(f"--model {name}: {module_name} has no ModelSpec {attribute}")
    if spec.name in MODELS:
        raise UserError(f"--model {name}: the name {spec.name!r} is a registered model's")
    return spec
