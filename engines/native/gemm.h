// Single-precision matrix product for matrices that live in the caches, one thread.
//
// Everything here is a pure function of its arguments: the order of every sum depends on the
// shapes alone, so a product has the same bits whatever else the machine is doing.
#pragma once

#include "vector.h"

namespace native {

// A block of MR rows times NV vectors keeps MR * NV accumulators in registers, next to NV vectors
// of b and one broadcast element of a: 15 of the 16 that AVX2 has, 27 of the 32 of AVX-512. An
// element of a product is the sum over k in its order, whatever the block: its bits are the same.
constexpr int MR = WL > VL ? 12 : 6, NV = 2, NR = WL * NV;

// One column panel of b (KC x NR) fills at most half of a 32 KiB L1 cache; the rows of a that
// meet it (MC x KC) at most three quarters of a 512 KiB L2 cache.
constexpr int KC = 256, MC = 384;

// Floats of scratch that gemm() needs, whatever the shapes.
constexpr std::size_t GEMM_WORKSPACE = std::size_t(KC) * (NR + MC);

// A row-major matrix to multiply; `transposed` means that its transpose is what is stored.
struct Factor {
    const float* data;
    std::ptrdiff_t ld;  // distance of two stored rows, in floats
    bool transposed = false;
};

// A row-major matrix to write to, or to add to.
struct Product {
    float* data;
    std::ptrdiff_t ld;
    bool accumulate = false;
};

// What happens to an element of the product after its sum is complete. Biases are added to it.
struct Epilogue {
    const float* row_bias = nullptr;     // (m,)
    const float* column_bias = nullptr;  // (n,)
    bool relu = false;                   // NaN stays NaN, as in torch
};

// c (m x n) = a (m x k) * b (k x n), then the epilogue. `workspace`: GEMM_WORKSPACE floats, which
// need not be initialised. c must overlap neither a nor b. Nothing outside the matrices is read.
void gemm(int m, int n, int k, const Factor& a, const Factor& b, const Product& c,
          float* workspace, const Epilogue& epilogue = {});

// `length` cut into as few blocks of at most `largest` as possible, their sizes within one of
// each other: a thin last block would not keep enough sums in flight to hide the latency.
struct Blocks {
    int count, size, larger;  // the first `larger` blocks have one more than `size`
    Blocks(int length, int largest)
        : count((length + largest - 1) / largest), size(length / count), larger(length % count) {}
    int start(int i) const { return i * size + std::min(i, larger); }
};

}  // namespace native
