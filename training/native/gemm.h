// Single-precision matrix product for matrices that live in the caches, one thread.
//
// Everything here is a pure function of its arguments: the order of every sum depends on the
// shapes alone, so a product has the same bits whatever else the machine is doing.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

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

// c block (ROWS x VECS vectors, of which `columns` elements exist) = a block * b panel.
// Element (r, p) of a is a[r * a_row + p * a_k]; row p of b is a full panel at b + p * ldb.
template <int ROWS, int VECS>
void tile(int k, const float* a, std::ptrdiff_t a_row, std::ptrdiff_t a_k, const float* b,
          std::ptrdiff_t ldb, float* c, std::ptrdiff_t ldc, int columns, bool accumulate,
          const Epilogue& epilogue) {
    vec sum[ROWS][VECS];
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 16
        for (int v = 0; v < VECS; ++v) sum[r][v] = vec{};
    }
    for (int p = 0; p < k; ++p) {
        vec row[VECS];
#pragma GCC unroll 16
        for (int v = 0; v < VECS; ++v) row[v] = load(b + v * VL);
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; ++r) {
            const vec x = splat(a[r * a_row]);
#pragma GCC unroll 16
            for (int v = 0; v < VECS; ++v) sum[r][v] += x * row[v];
        }
        a += a_k;
        b += ldb;
    }
    if (columns == VECS * VL) {
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 16
            for (int v = 0; v < VECS; ++v) {
                vec y = sum[r][v];
                float* to = c + r * ldc + v * VL;
                if (accumulate) y += load(to);
                if (epilogue.row_bias) y += splat(epilogue.row_bias[r]);
                if (epilogue.column_bias) y += load(epilogue.column_bias + v * VL);
                if (epilogue.relu) y = y < 0 ? vec{} : y;
                store(to, y);
            }
        }
        return;
    }
    alignas(64) float block[ROWS][VECS * VL];
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 16
        for (int v = 0; v < VECS; ++v) store(&block[r][v * VL], sum[r][v]);
    }
    for (int r = 0; r < ROWS; ++r) {
        for (int j = 0; j < columns; ++j) {
            float y = block[r][j];
            if (accumulate) y += c[r * ldc + j];
            if (epilogue.row_bias) y += epilogue.row_bias[r];
            if (epilogue.column_bias) y += epilogue.column_bias[j];
            c[r * ldc + j] = epilogue.relu && y < 0 ? 0 : y;
        }
    }
}

using Tile = decltype(&tile<1, 1>);

template <int... I>
constexpr std::array<Tile, sizeof...(I)> all_tiles(std::integer_sequence<int, I...>) {
    return {tile<I / NV + 1, I % NV + 1>...};
}
constexpr auto TILES = all_tiles(std::make_integer_sequence<int, MR * NV>());

// `length` cut into as few blocks of at most `largest` as possible, their sizes within one of
// each other: a thin last block would not keep enough sums in flight to hide the latency.
struct Blocks {
    int length, count;
    Blocks(int length, int largest) : length(length), count((length + largest - 1) / largest) {}
    int start(int i) const { return int(std::int64_t(length) * i / count); }
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

// Columns [0, columns) of b as a panel: k rows of `width` floats, zero beyond `columns`.
inline void pack_b(bool trans_b, int k, int columns, int width, const float* b, std::ptrdiff_t ldb,
                   float* panel) {
    if (columns < width) std::fill(panel, panel + std::ptrdiff_t(k) * width, 0.0f);
    if (trans_b) {
        transpose(columns, k, b, ldb, panel, width);
        return;
    }
    for (int p = 0; p < k; ++p) {
        const float* from = b + p * ldb;
        float* to = panel + std::ptrdiff_t(p) * width;
        if (columns == NR) {
#pragma GCC unroll 16
            for (int v = 0; v < NV; ++v) store(to + v * VL, load(from + v * VL));
        } else {
            std::copy(from, from + columns, to);
        }
    }
}

// c (m x n) = op(a) (m x k) * op(b) (k x n), added to c if `accumulate`, then the epilogue.
// All row-major with row strides lda, ldb, ldc; op transposes where asked, so that a is stored
// (k x m) under trans_a and b (n x k) under trans_b. `workspace`: GEMM_WORKSPACE floats, which
// need not be initialised. c must overlap neither a nor b. Nothing outside the matrices is read.
inline void gemm(bool trans_a, bool trans_b, int m, int n, int k, const float* a,
                 std::ptrdiff_t lda, const float* b, std::ptrdiff_t ldb, float* c,
                 std::ptrdiff_t ldc, bool accumulate, float* workspace,
                 const Epilogue& epilogue = {}) {
    if (m <= 0 || n <= 0) return;
    float* const b_panel = workspace;                 // (KC x NR)
    float* const a_block = workspace + KC * NR;       // (MC x KC)
    const std::ptrdiff_t b_k = trans_b ? 1 : ldb, b_column = trans_b ? ldb : 1;
    const Blocks k_blocks(std::max(k, 1), KC), m_blocks(m, MC);
    const int full_columns = n / NR * NR;
    for (int kb = 0; kb < k_blocks.count; ++kb) {
        const int p0 = k_blocks.start(kb), depth = k <= 0 ? 0 : k_blocks.start(kb + 1) - p0;
        const bool add = accumulate || kb > 0, last = kb + 1 == k_blocks.count;
        for (int mb = 0; mb < m_blocks.count; ++mb) {
            const int i0 = m_blocks.start(mb), rows = m_blocks.start(mb + 1) - i0;
            const Blocks panels(rows, MR);
            const float* a_from = trans_a ? a + p0 * lda + i0 : a + i0 * lda + p0;
            std::ptrdiff_t a_row = trans_a ? 1 : lda, a_k = trans_a ? lda : 1;
            // A tall transposed a touches a new cache line per step of k; copied to rows, each
            // line is read once. Not worth it when few panels of b use the copy.
            if (trans_a && n >= 6 * NR) {
                transpose(depth, rows, a_from, lda, a_block, depth);
                a_from = a_block, a_row = depth, a_k = 1;
            }
            const auto multiply = [&](int panel, int j, const float* from, std::ptrdiff_t stride) {
                const int i = panels.start(panel), height = panels.start(panel + 1) - i;
                const int columns = std::min(NR, n - j), vecs = (columns + VL - 1) / VL;
                Epilogue end;
                if (last) {
                    end = epilogue;
                    if (end.row_bias) end.row_bias += i0 + i;
                    if (end.column_bias) end.column_bias += j;
                }
                TILES[(height - 1) * NV + vecs - 1](depth, a_from + i * a_row, a_row, a_k, from,
                                                    stride, c + (i0 + i) * ldc + j, ldc, columns,
                                                    add, end);
            };
            // A b of few rows or little use is read where it lies; a small one stays in L1 while
            // the rows of a pass by once. Otherwise each panel of b is copied once and stays.
            const bool direct = !trans_b && (rows < 64 || depth * ldb <= 4096);
            int j = 0;
            if (direct && depth * full_columns <= 4096) {
                for (int panel = 0; panel < panels.count; ++panel) {
                    for (j = 0; j < full_columns; j += NR) multiply(panel, j, b + p0 * ldb + j, ldb);
                }
                j = full_columns;
            }
            for (; j < n; j += NR) {
                const float* from = b + p0 * b_k + j * b_column;
                std::ptrdiff_t stride = ldb;
                if (!direct || j + NR > n) {
                    const int columns = std::min(NR, n - j), width = round_up(columns, VL);
                    pack_b(trans_b, depth, columns, width, from, ldb, b_panel);
                    from = b_panel, stride = width;
                }
                for (int panel = 0; panel < panels.count; ++panel) multiply(panel, j, from, stride);
            }
        }
    }
}

}  // namespace native
