"""The streams of a probe: the same bits everywhere, and none depends on another."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import stream_digests
from scripts import run_script

from dataset.random_stream import RandomStream
from training.probe import Probe
from training.start import start_probe
from training.streams import ProbeStreams
from transformer_experiments.transformer_utils import TransformerArchitecture

# What every machine and every version of NumPy and torch has to arrive at. Where one of these
# changes, so do all results: a probe log from before cannot be continued.
DIGESTS = {
    "data": "11c70c2452e9c5992735865951b56188846903a72389c2f47eed81c573b988d3",
    "weights of an MLP": "9acb5442aa396295bc056e07807c7fb164f30b31fd047e78637c7947de13ee75",
    "weights of a transformer": "68bf165536cc6dcdf21bff9a4b40111d0952c5f1ba609012adf13f2b056e6715",
    "three batch orders": "4b0a5e990588abdb93fd505a929d44e1f7e03382dd670e49f875ee30cbb4d710",
    "1000 mask draws": "2c296150a9dac56b94fa5ffa15657996b7a02bd62d3813e0b27e74e28754daf7",
    "100,000 normal numbers": "3679e9883ca93df9701e1a21816f492b586fa11e94b28de8a9599e8824aaa0df",
    "orthonormal columns": "c645eb0995c4e697e304f2a727052e24dc048035604e2c4ad483b0f98b19c4a9",
    "orthogonal weights of an MLP": (
        "cbcfb3204519ad54897bcd94704db6aba9be45243eea7f171f18d126acb574ff"
    ),
    "orthogonal weights of a transformer": (
        "f385715558aa444fa1852a7b45550d29fc860fd5172042ad04bc6e9ace14222f"
    ),
    "another attempt": "b046df2228298beebdf23e4f56ef19134e3f590f6b7fdcc0aad1f45b75c95e54",
}
# The vector instructions beyond its baseline that NumPy found on this CPU.
NUMPY_FEATURES = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])


def test_the_bits_are_pinned():
    assert stream_digests.stream_digests() == DIGESTS


@pytest.mark.parametrize(
    "environment",
    [
        {"ATEN_CPU_CAPABILITY": "default"},
        {"NPY_DISABLE_CPU_FEATURES": " ".join(NUMPY_FEATURES)},
    ],
    ids=["torch", "numpy"],
)
def test_without_the_cpus_vector_instructions_the_bits_are_the_same(environment, tmp_path):
    ended = run_script(Path(stream_digests.__file__), cwd=tmp_path, **environment)
    assert ended.returncode == 0, ended.stderr
    lines = [line.split(": ") for line in ended.stdout.splitlines()]
    assert dict(lines) == DIGESTS


def test_every_stream_is_a_child_of_the_probes_seed():
    children = np.random.SeedSequence([4, 5, 6]).spawn(4)
    data, weights, order, dropout = (np.random.SFC64(child) for child in children)
    streams = ProbeStreams(4, 5, 6)
    np.testing.assert_array_equal(RandomStream(streams.data).words(9), data.random_raw(9))
    np.testing.assert_array_equal(streams.initial_weights().words(9), weights.random_raw(9))
    orders = [np.argsort(order.random_raw(6)) for _ in range(3)]  # the keys' low bits never matter
    np.testing.assert_array_equal(list(itertools.islice(streams.batch_orders(6), 3)), orders)
    draws = [(word >> shift) % 2**16 for word in dropout.random_raw(3) for shift in (0, 16, 32, 48)]
    masks = streams.dropout_masks(0.1)
    np.testing.assert_array_equal(masks.draw(6), draws[:6])
    np.testing.assert_array_equal(masks.draw(4), draws[8:])  # from a whole word on


def test_another_attempt_has_the_same_data_and_three_other_streams():
    attempts = [ProbeStreams(4, 5, 6, attempt) for attempt in range(4)]
    first = ProbeStreams(4, 5, 6)
    for streams in attempts:
        np.testing.assert_array_equal(
            RandomStream(streams.data).words(9), RandomStream(first.data).words(9)
        )
    for draw in (
        lambda streams: streams.initial_weights().words(9),
        lambda streams: np.array(list(itertools.islice(streams.batch_orders(50), 3))),
        lambda streams: streams.dropout_masks(0.1).draw(36),
    ):
        np.testing.assert_array_equal(draw(attempts[0]), draw(first))
        assert len({draw(streams).tobytes() for streams in attempts}) == len(attempts)


def test_a_probe_starts_from_its_attempts_streams():
    architecture = TransformerArchitecture(16, 20, 2, 1)
    starts = [
        start_probe(Probe(architecture, architecture.spec.protocol(), 1, 2, 30, attempt))
        for attempt in (0, 1, 2)
    ]
    for start in starts[1:]:
        np.testing.assert_array_equal(start.inputs, starts[0].inputs)
        np.testing.assert_array_equal(start.targets, starts[0].targets)
    for drawn in (
        lambda start: start.module.head.weight.detach().numpy(),
        lambda start: next(start.epochs())[0],
        lambda start: start.masks.draw(36),
    ):
        assert len({drawn(start).tobytes() for start in starts}) == len(starts)


def test_asking_again_begins_again():
    streams, same = ProbeStreams(0, 1, 30), ProbeStreams(0, 1, 30)
    for _ in range(2):
        assert streams.initial_weights().words(1) == same.initial_weights().words(1)
        first, second = itertools.islice(streams.batch_orders(30), 2)
        assert not np.array_equal(first, second)
        np.testing.assert_array_equal(first, next(same.batch_orders(30)))


def test_probes_share_no_stream():
    identities = list(itertools.product((0, 1), (0, 1, 2), (2, 4), (0, 1, 3)))
    words = [
        RandomStream(child).words(1).item()
        for identity in identities
        for streams in [ProbeStreams(*identity)]
        for child in (streams._init, streams._order, streams._dropout)
    ]
    words += [
        RandomStream(ProbeStreams(*identity).data).words(1).item()
        for identity in {identity[:3] for identity in identities}
    ]
    assert len(set(words)) == 3 * len(identities) + len(identities) // 3


def test_attempts_of_large_seeds_are_no_other_probes():
    """NumPy makes two numbers of a seed beyond 32 bits, so identities could run into each other."""
    large, small = ProbeStreams(5 + 7 * 2**32, 11, 13), ProbeStreams(5, 7, 11, attempt=13)
    ours = large.initial_weights().words(4), small.initial_weights().words(4)
    assert not (ours[0] == ours[1]).any()
