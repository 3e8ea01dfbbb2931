"""Result CSVs made up for the tests of tables and figures."""

import numpy as np

from threshold_search.log.layout import result_layout, task_columns
from threshold_search.models import MODELS
from training.probe import BITS_VERSION
from training.protocol import parse_label

MLP_1 = {"budget": 10000, "num_parameters": 9949, "hidden_size": 49, "num_layers": 1}
MLP_4 = {"budget": 10000, "num_parameters": 10099, "hidden_size": 33, "num_layers": 4}
MLP_30K = {"budget": 30000, "num_parameters": 30049, "hidden_size": 149, "num_layers": 1}
HEADS_2 = {
    "budget": 32000,
    "num_parameters": 34342,
    "hidden_size": 32,
    "d_ff": 380,
    "num_heads": 2,
    "num_layers": 1,
}
HEADS_8 = {**HEADS_2, "num_heads": 8}


def write_results(folder, model, failures, protocol="paper", extra="", bits=BITS_VERSION):
    """Write a results CSV from (architecture, first failing sizes) pairs."""
    layout = result_layout(MODELS[model])
    task = task_columns(parse_label(protocol, MODELS[model].paper).protocol)
    text = layout.header + "\n"
    for architecture, sizes in failures:
        for repeat, size in enumerate(sizes):
            row = {
                "model": model,
                "protocol": protocol,
                "bits": bits,
                **task,
                **architecture,
                "repeat": repeat,
                "seed": 0,
                "threshold": size - 1,
                "first_failure": size,
                "max_epoch_reached": False,
                "probes": 9,
                "seconds": 1.5,
            }
            text += layout.line(row)
    path = folder / f"{model}_results.csv"
    path.write_text(text + extra)
    return path


def row_of(table, architecture):
    match = np.logical_and.reduce([table[k] == v for k, v in architecture.items()])
    (row,) = table[match].to_dict("records")
    return row


def write_partial(folder):
    """Measure two of the MLP rows and two of the transformer rows."""
    write_results(folder, "mlp", [(MLP_1, [400, 500, 540]), (MLP_4, [7])])
    write_results(folder, "transformer", [(HEADS_2, [20, 24]), (HEADS_8, [30, 30, 36])])
    return folder


# A model that is not registered, as text: a size of its own in numbers, another in words.
WIDTH_HEADER = (
    "model,protocol,bits,budget,num_parameters,width,activation,repeat,seed,"
    "threshold,first_failure,max_epoch_reached,probes,seconds\n"
)


def write_widths(folder, sizes):
    """Write the results of a model "toy" from first failing sizes by (width, activation)."""
    text = WIDTH_HEADER
    for (width, activation), failures in sizes.items():
        parameters = 201 * width + 100
        for repeat, size in enumerate(failures):
            text += (
                f"toy,paper,{BITS_VERSION},{parameters},{parameters},{width},{activation},"
                f"{repeat},0,{size - 1},{size},False,9,1.5\n"
            )
    path = folder / "toy_results.csv"
    path.write_text(text)
    return path
