"""The pieces of the compiled library, each against NumPy or torch."""

import ctypes

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dataset.encoding import IGNORED
from engines.native.load import load_engine

pytestmark = pytest.mark.skipif(load_engine() is None, reason="no compiled engine")


def pointer(array):
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


class GemmCall(ctypes.Structure):
    """Mirror of test_doors.cpp's; every matrix is (data, distance of rows, flag)."""

    _fields_ = [
        *[("a", ctypes.c_void_p), ("lda", ctypes.c_ssize_t), ("trans_a", ctypes.c_bool)],
        *[("b", ctypes.c_void_p), ("ldb", ctypes.c_ssize_t), ("trans_b", ctypes.c_bool)],
        *[("c", ctypes.c_void_p), ("ldc", ctypes.c_ssize_t), ("accumulate", ctypes.c_bool)],
        *[("row_bias", ctypes.c_void_p), ("column_bias", ctypes.c_void_p), ("relu", ctypes.c_bool)],
    ]


class Logits(ctypes.Structure):
    """Mirror of ``native::Logits``."""

    _fields_ = [
        *[("vocab", ctypes.c_int), ("tokens", ctypes.c_int), ("data", ctypes.c_void_p)],
        *[("ld", ctypes.c_ssize_t), ("labels", ctypes.c_void_p)],
    ]


def call(name, *arguments, result=None):
    function = getattr(load_engine(), name)
    function.restype = result
    return function(*arguments)


def gemm(trans_a, trans_b, a, b, c, accumulate=False, row_bias=None, column_bias=None, relu=False):
    """Multiply by the library, into ``c``; matrices may be views of rows with a longer stride."""
    m, n = c.shape
    k = a.shape[0] if trans_a else a.shape[1]
    flags = trans_a, trans_b, accumulate
    matrices = zip((a, b, c), flags, strict=True)
    fields = [field for x, flag in matrices for field in (pointer(x), x.strides[0] // 4, flag)]
    fields += [pointer(row_bias), pointer(column_bias), relu]
    call("test_gemm", m, n, k, ctypes.byref(GemmCall(*fields)))


def matrix(rng, rows, columns, padding=0):
    return rng.standard_normal((rows, columns + padding)).astype(np.float32)[:, :columns]


SHAPES = [
    *[(32, 49, 100), (32, 100, 49), (100, 32, 49), (320, 128, 155), (128, 155, 320), (320, 32, 32)],
    *[(1, 1, 1), (5, 17, 3), (7, 15, 1), (13, 8, 16), (6, 16, 8), (12, 32, 64), (1, 40, 300)],
    *[(33, 1, 257), (65, 47, 512), (385, 31, 33), (800, 9, 5), (3, 3, 0), (64, 200, 600)],
]


@pytest.mark.parametrize("trans_a", [False, True])
@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize("padding", [0, 3])
def test_gemm_agrees_with_numpy_in_double(trans_a, trans_b, padding):
    rng = np.random.default_rng(0)
    for m, n, k in SHAPES:
        a = matrix(rng, k, m, padding) if trans_a else matrix(rng, m, k, padding)
        b = matrix(rng, n, k, padding) if trans_b else matrix(rng, k, n, padding)
        c, start = matrix(rng, m, n), matrix(rng, m, n)
        product = (a.T if trans_a else a).astype(float) @ (b.T if trans_b else b).astype(float)
        scale = np.sqrt(max(k, 1))
        gemm(trans_a, trans_b, a, b, c)
        np.testing.assert_allclose(c / scale, product / scale, atol=5e-6)
        added = start.copy()
        gemm(trans_a, trans_b, a, b, added, accumulate=True)
        np.testing.assert_allclose(added / scale, (product + start) / scale, atol=5e-6)


def test_gemm_writes_nothing_outside_its_matrix():
    rng = np.random.default_rng(1)
    whole = np.full((40, 60), 7, np.float32)
    gemm(False, False, matrix(rng, 33, 20), matrix(rng, 20, 41), whole[2:35, 5:46])
    outside = np.ones_like(whole, dtype=bool)
    outside[2:35, 5:46] = False
    assert (whole[outside] == 7).all()
    assert (whole[2:35, 5:46] != 7).all()


@pytest.mark.parametrize(
    "shape",
    [(32, 48, 20), (33, 41, 300), *[(m, n, 20) for m in (1, 2, 3, 5, 7, 10, 19) for n in (48, 41)]],
)
def test_gemm_adds_biases_and_applies_relu_last(shape):
    m, n, k = shape
    rng = np.random.default_rng(2)
    a, b, c = matrix(rng, m, k), matrix(rng, k, n), matrix(rng, m, n)
    row_bias, column_bias = matrix(rng, 1, m)[0].copy(), matrix(rng, 1, n)[0].copy()
    row_bias[0] = np.nan
    gemm(False, False, a, b, c, row_bias=row_bias, column_bias=column_bias, relu=True)
    expected = a.astype(float) @ b + row_bias[:, None] + column_bias
    np.testing.assert_allclose(c[1:], np.maximum(expected[1:], 0), atol=2e-5)
    assert np.isnan(c[0]).all()


def test_gemm_rows_do_not_depend_on_what_else_is_in_memory():
    rng = np.random.default_rng(3)
    a, b = matrix(rng, 32, 100), matrix(rng, 100, 49)
    first, second = np.empty((32, 49), np.float32), np.empty((35, 60), np.float32)
    gemm(False, False, a, b, first)
    gemm(False, False, a, b, second[3:, 11:])
    assert (first == second[3:, 11:]).all()


def test_exp_and_log():
    x = np.concatenate([np.linspace(-87, 88, 200_000), [0, -1e-30, 1e-30, -100, -np.inf, np.nan]])
    x = np.resize(x.astype(np.float32), 200_064)
    exp_x, unused, log_y = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    call("test_exp_log", ctypes.c_int64(x.size), *map(pointer, (x, exp_x, unused)))
    exact = np.exp(x.astype(float))
    normal = x > -87.3
    np.testing.assert_allclose(exp_x[normal], exact[normal], rtol=2e-7)
    assert (exp_x[x < -87.3] == 0).all()
    assert np.isnan(exp_x[np.isnan(x)]).all()

    y = np.where(np.isnan(x), x, exact).astype(np.float32)
    y[y < 2e-38] = 1
    call("test_exp_log", ctypes.c_int64(y.size), *map(pointer, (y, unused, log_y)))
    np.testing.assert_allclose(log_y, np.log(y.astype(float)), rtol=2e-7, atol=6e-8)


def test_gelu_and_its_derivative():
    """GPT-2's, by its own formula in double; the engine's has no tanh."""
    edges = [0, -0.0, 1e-30, -1e-30, 60, -60, 1e4, -1e4, np.nan, 3e38, -3e38, np.inf]
    x = np.concatenate([np.linspace(-15, 15, 200_000), np.geomspace(1e-20, 1, 200), edges])
    x = np.resize(x.astype(np.float32), 200_216)
    value, slope = np.empty_like(x), np.empty_like(x)
    call("test_gelu", ctypes.c_int64(x.size), *map(pointer, (x, value, slope)))
    exact = torch.from_numpy(x).double().requires_grad_()
    expected = F.gelu(exact, approximate="tanh")
    expected.sum().backward()
    np.testing.assert_allclose(value, expected.detach(), rtol=1e-6, atol=1e-7)
    finite = np.isnan(x) | (np.abs(x) < 1e10)  # beyond, 0 * infinity: a NaN in torch too
    np.testing.assert_allclose(slope[finite], exact.grad.numpy()[finite], rtol=1e-6, atol=3e-7)
    # Relative errors stay small where 1 + tanh would cancel, and near 0.
    small = (x > -8) & (x < 0)
    u = np.sqrt(2 / np.pi) * (x[small].astype(float) + 0.044715 * x[small].astype(float) ** 3)
    share = np.exp(2 * u) / (1 + np.exp(2 * u))
    np.testing.assert_allclose(value[small], x[small] * share, rtol=2e-5)
    tiny = np.abs(x) < 1e-4
    np.testing.assert_allclose(value[tiny], x[tiny] * (0.5 + 0.398942 * x[tiny]), rtol=3e-7)


@pytest.mark.parametrize(("vocab", "tokens"), [(10, 320), (2, 5), (3, 17), (37, 8)])
def test_loss_and_gradient_agree_with_torch(vocab, tokens):
    generator = torch.Generator().manual_seed(vocab)
    logits = torch.randn(tokens, vocab, generator=generator) * 5
    logits[0] = 1.0  # a tie: the first of the highest counts
    labels = torch.randint(vocab, (tokens,), generator=generator)
    loss, correct, gradient = score(logits, labels)

    exact = logits.double().requires_grad_()
    reference = F.cross_entropy(exact, labels, reduction="sum")
    (reference * 0.25).backward()
    assert loss == pytest.approx(reference.item(), rel=1e-6)
    assert correct == int((logits.argmax(-1) == labels).sum())
    np.testing.assert_allclose(gradient, exact.grad.numpy(), atol=1e-7)


@pytest.mark.parametrize("ignored", [slice(0, 9), slice(3, None, 2), slice(None)], ids=str)
def test_tokens_that_do_not_count(ignored):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(21, 5, generator=generator)
    labels = torch.randint(5, (21,), generator=generator)
    labels[ignored] = IGNORED
    loss, correct, gradient = score(logits, labels)
    exact = logits.double().requires_grad_()
    (F.cross_entropy(exact, labels, reduction="sum") * 0.25).backward()
    assert loss == pytest.approx(F.cross_entropy(logits, labels, reduction="sum").item(), rel=1e-6)
    assert correct == int((logits.argmax(-1) == labels).sum())
    np.testing.assert_allclose(gradient, exact.grad.numpy(), atol=1e-7)


def test_a_token_with_a_nan_logit_is_wrong():
    logits = torch.zeros(20, 4)
    logits[:, 1] = 5.0
    logits[3, 2] = torch.nan
    logits[4, 1] = torch.nan
    loss, correct, _ = score(logits, torch.ones(20, dtype=torch.int64))
    assert np.isnan(loss)
    assert correct == 18


def score(logits, labels):
    logits, labels = logits.numpy().copy(), labels.numpy().astype(np.int32)
    gradient = np.empty_like(logits)
    loss, correct = ctypes.c_double(), ctypes.c_int64()
    tokens, vocab = logits.shape
    given = Logits(vocab, tokens, pointer(logits), vocab, pointer(labels))
    results = pointer(gradient), ctypes.byref(loss), ctypes.byref(correct)
    call("test_loss", ctypes.byref(given), ctypes.c_float(0.25), *results)
    return loss.value, correct.value, gradient


@pytest.mark.parametrize("beta1", [0.9, 0.0])
def test_adamw_follows_torch(beta1):
    rng, steps = np.random.default_rng(4), 100
    p = rng.standard_normal(1003).astype(np.float32)
    m, v = np.zeros_like(p), np.zeros_like(p)
    theirs = torch.nn.Parameter(torch.from_numpy(p.copy()))
    optimizer = torch.optim.AdamW([theirs], betas=(beta1, 0.999), weight_decay=0.3)
    rates = 0.01 * np.arange(steps, 0, -1) / steps
    g = np.empty((steps, p.size), np.float32)
    for gradient in g:
        gradient[:] = rng.standard_normal(p.size) * 10.0 ** rng.integers(-9, 2, p.size)
    g[:, :10] = 0
    for rate, gradient in zip(rates, g, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        theirs.grad = torch.from_numpy(gradient * np.float32(0.5))
        optimizer.step()
    sizes = ctypes.c_int64(p.size), ctypes.c_int64(steps)
    call("test_adamw", *sizes, pointer(rates), ctypes.c_double(beta1), *map(pointer, (p, g, m, v)))
    np.testing.assert_allclose(p, theirs.detach().numpy(), rtol=1e-5, atol=1e-6)
    state = optimizer.state[theirs]
    np.testing.assert_allclose(m, state["exp_avg"].numpy(), rtol=1e-4, atol=1e-12)
    np.testing.assert_allclose(v, state["exp_avg_sq"].numpy(), rtol=1e-5, atol=1e-25)


@pytest.mark.parametrize("size", [0, 1, 31, 32, 513, 100_003])
def test_sum_of_squares(size):
    x = np.random.default_rng(5).standard_normal(size).astype(np.float32)
    total = call("test_sum_of_squares", ctypes.c_int64(size), pointer(x), result=ctypes.c_double)
    assert total == pytest.approx((x.astype(float) ** 2).sum(), rel=1e-6)


@pytest.mark.parametrize("skipped", [0, 5])
def test_sfc64_continues_numpys_stream(skipped):
    bits = np.random.SFC64(np.random.SeedSequence(6))
    bits.random_raw(skipped)
    state = bits.state["state"]["state"].copy()
    draws = np.empty(4000, np.uint16)
    call("test_sfc64", pointer(state), ctypes.c_int64(draws.size), pointer(draws))
    assert (draws == bits.random_raw(1000).view(np.uint16)).all()
