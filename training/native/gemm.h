// Single-precision matrix product for matrices that live in the caches, one thread.
//
// Everything here is a pure function of its arguments: the order of every sum depends on the
// shapes alone, so a product has the same bits whatever else the machine is doing.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace native {

// Vector length and register block. A block of MR rows times NV vectors keeps MR * NV
// accumulators in registers, next to NV vectors of b and one broadcast element of a.
#if defined(__AVX512F__)
constexpr int VL = 16, MR = 12, NV = 2;
#elif defined(__AVX__)
constexpr int VL = 8, MR = 6, NV = 2;
#elif defined(__aarch64__)
constexpr int VL = 4, MR = 6, NV = 4;
#else
constexpr int VL = 4, MR = 6, NV = 2;
#endif
constexpr int NR = VL * NV;

// One column panel of b (KC x NR) fills at most half of a 32 KiB L1 cache; the rows of a that
// meet it (MC x KC) at most three quarters of a 512 KiB L2 cache.
constexpr int KC = 256, MC = 384;

// Floats of scratch that gemm() needs, whatever the shapes.
constexpr std::size_t GEMM_WORKSPACE = std::size_t(KC) * (NR + MC);

typedef float vec __attribute__((vector_size(VL * 4)));
typedef std::int32_t ivec __attribute__((vector_size(VL * 4)));
typedef float loose_vec __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef float quad __attribute__((vector_size(16)));
typedef float loose_quad __attribute__((vector_size(16), aligned(4), may_alias));

inline vec load(const float* p) { return *reinterpret_cast<const loose_vec*>(p); }
inline void store(float* p, vec x) { *reinterpret_cast<loose_vec*>(p) = x; }
inline vec splat(float x) { return x - vec{}; }  // x + 0 would turn -0 into 0
inline int round_up(int x, int multiple) { return (x + multiple - 1) / multiple * multiple; }

// What happens to an element of c after its sum is complete. The biases are added to the sum.
struct Epilogue {
    const float* row_bias = nullptr;     // (m,)
    const float* column_bias = nullptr;  // (n,)
    bool relu = false;                   // NaN stays NaN, as in torch
};

// c (m x n) = op(a) (m x k) * op(b) (k x n), added to c if `accumulate`, then the epilogue.
// All row-major with row strides lda, ldb, ldc; op transposes where asked, so that a is stored
// (k x m) under trans_a and b (n x k) under trans_b. `workspace`: GEMM_WORKSPACE floats, which
// need not be initialised. c must overlap neither a nor b. Nothing outside the matrices is read.
void gemm(bool trans_a, bool trans_b, int m, int n, int k, const float* a, std::ptrdiff_t lda,
          const float* b, std::ptrdiff_t ldb, float* c, std::ptrdiff_t ldc, bool accumulate,
          float* workspace, const Epilogue& epilogue = {});

// `length` cut into as few blocks of at most `largest` as possible, their sizes within one of
// each other: a thin last block would not keep enough sums in flight to hide the latency.
struct Blocks {
    int count, size, larger;  // the first `larger` blocks have one more than `size`
    Blocks(int length, int largest)
        : count((length + largest - 1) / largest), size(length / count), larger(length % count) {}
    int start(int i) const { return i * size + std::min(i, larger); }
};

inline quad interleave_low(quad a, quad b) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(a, b, 0, 4, 1, 5);
#else
    return __builtin_shuffle(a, b, (decltype(a < b)){0, 4, 1, 5});
#endif
}

inline quad interleave_high(quad a, quad b) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(a, b, 2, 6, 3, 7);
#else
    return __builtin_shuffle(a, b, (decltype(a < b)){2, 6, 3, 7});
#endif
}

// to (columns x rows) = transpose of from (rows x columns).
inline void transpose(int rows, int columns, const float* from, std::ptrdiff_t ld_from, float* to,
                      std::ptrdiff_t ld_to) {
    int i = 0;
    for (; i + 4 <= rows; i += 4) {
        const float* in = from + i * ld_from;
        int j = 0;
        for (; j + 4 <= columns; j += 4) {
            const quad a = *reinterpret_cast<const loose_quad*>(in + j);
            const quad b = *reinterpret_cast<const loose_quad*>(in + ld_from + j);
            const quad c = *reinterpret_cast<const loose_quad*>(in + 2 * ld_from + j);
            const quad d = *reinterpret_cast<const loose_quad*>(in + 3 * ld_from + j);
            const quad ac_low = interleave_low(a, c), bd_low = interleave_low(b, d);
            const quad ac_high = interleave_high(a, c), bd_high = interleave_high(b, d);
            float* out = to + j * ld_to + i;
            *reinterpret_cast<loose_quad*>(out) = interleave_low(ac_low, bd_low);
            *reinterpret_cast<loose_quad*>(out + ld_to) = interleave_high(ac_low, bd_low);
            *reinterpret_cast<loose_quad*>(out + 2 * ld_to) = interleave_low(ac_high, bd_high);
            *reinterpret_cast<loose_quad*>(out + 3 * ld_to) = interleave_high(ac_high, bd_high);
        }
        for (; j < columns; ++j) {
            for (int r = 0; r < 4; ++r) to[j * ld_to + i + r] = in[r * ld_from + j];
        }
    }
    for (; i < rows; ++i) {
        for (int j = 0; j < columns; ++j) to[j * ld_to + i] = from[i * ld_from + j];
    }
}

}  // namespace native
