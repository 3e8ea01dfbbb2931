#include "gemm.h"

#include <array>
#include <utility>

namespace native {

namespace {

// action(r, v) for every vector of a block, unrolled, so that the block can live in registers.
template <int ROWS, int VECS, class Action>
void each(Action action) {
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 16
        for (int v = 0; v < VECS; ++v) action(r, v);
    }
}

// Write a block whose last columns do not exist in c. Not worth a copy in every tile.
__attribute__((noinline)) void finish_edge(int rows, int columns, const float* block,
                                           const Product& c, const Epilogue& epilogue) {
    for (int r = 0; r < rows; ++r) {
        float* const to = c.data + r * c.ld;
        for (int j = 0; j < columns; ++j) {
            float y = block[r * NR + j];
            if (c.accumulate) y += to[j];
            if (epilogue.row_bias) y += epilogue.row_bias[r];
            if (epilogue.column_bias) y += epilogue.column_bias[j];
            to[j] = epilogue.relu && y < 0 ? 0 : y;
        }
    }
}

// What a tile multiplies: element (r, p) of a is a[r * a_row + p * a_k]; row p of b is a full
// panel at b + p * ldb.
struct Operands {
    int k;
    const float* a;
    std::ptrdiff_t a_row, a_k;
    const float* b;
    std::ptrdiff_t ldb;
};

// c block (ROWS x VECS vectors, of which `columns` elements exist) = a block * b panel.
template <int ROWS, int VECS>
void tile(const Operands& from, const Product& to, int columns, const Epilogue& epilogue) {
    const float *a = from.a, *b = from.b;
    const std::ptrdiff_t a_row = from.a_row, a_k = from.a_k, ldb = from.ldb, ldc = to.ld;
    float* const c = to.data;
    wide sum[ROWS][VECS];
    each<ROWS, VECS>([&](int r, int v) { sum[r][v] = wide{}; });
    for (int p = 0; p < from.k; ++p) {
        wide row[VECS];
#pragma GCC unroll 16
        for (int v = 0; v < VECS; ++v) row[v] = load<wide>(b + v * WL);
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; ++r) {
            const wide x = splat<wide>(a[r * a_row]);
#pragma GCC unroll 16
            for (int v = 0; v < VECS; ++v) sum[r][v] = fma(x, row[v], sum[r][v]);
        }
        a += a_k;
        b += ldb;
    }
    if (columns < VECS * WL) {
        float block[MR * NR];
        each<ROWS, VECS>([&](int r, int v) { store(block + r * NR + v * WL, sum[r][v]); });
        finish_edge(ROWS, columns, block, to, epilogue);
        return;
    }
    if (to.accumulate) each<ROWS, VECS>([&](int r, int v) { sum[r][v] += load<wide>(c + r * ldc + v * WL); });
    if (const float* bias = epilogue.row_bias) {
        each<ROWS, VECS>([&](int r, int v) { sum[r][v] += splat<wide>(bias[r]); });
    }
    if (const float* bias = epilogue.column_bias) {
        each<ROWS, VECS>([&](int r, int v) { sum[r][v] += load<wide>(bias + v * WL); });
    }
    if (epilogue.relu) {
        each<ROWS, VECS>([&](int r, int v) { sum[r][v] = sum[r][v] < 0 ? wide{} : sum[r][v]; });
    }
    each<ROWS, VECS>([&](int r, int v) { store(c + r * ldc + v * WL, sum[r][v]); });
}

using Tile = decltype(&tile<1, 1>);

// A tile has 1 row, or LOWEST to MR rows. More than MR rows divide into the latter, except that 7
// rows do not for an MR of 6. Lower panels go row by row: more tiles would take long to compile.
constexpr int LOWEST = MR > 6 ? 6 : 4;

constexpr int height_index(int rows) { return rows < LOWEST ? 0 : rows - LOWEST + 1; }

template <int... I>
constexpr std::array<Tile, sizeof...(I)> all_tiles(std::integer_sequence<int, I...>) {
    return {tile<(I < NV ? 1 : I / NV + LOWEST - 1), I % NV + 1>...};
}
constexpr auto TILES =
    all_tiles(std::make_integer_sequence<int, (height_index(MR) + 1) * NV>());

// Columns [0, columns) of b as a panel: k rows of `width` floats, zero beyond `columns`.
void pack_b(bool trans_b, int k, int columns, int width, const float* b, std::ptrdiff_t ldb,
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
            for (int v = 0; v < NV; ++v) store(to + v * WL, load<wide>(from + v * WL));
        } else {
            std::copy(from, from + columns, to);
        }
    }
}

}  // namespace

void gemm(int m, int n, int k, const Factor& a, const Factor& b, const Product& c,
          float* workspace, const Epilogue& epilogue) {
    if (m <= 0 || n <= 0) return;
    float* const b_panel = workspace;            // (KC x NR)
    float* const a_block = workspace + KC * NR;  // (MC x KC)
    const std::ptrdiff_t b_k = b.transposed ? 1 : b.ld, b_column = b.transposed ? b.ld : 1;
    const Blocks k_blocks(std::max(k, 1), KC), m_blocks(m, MC);
    const int full_columns = n / NR * NR;
    for (int kb = 0; kb < k_blocks.count; ++kb) {
        const int p0 = k_blocks.start(kb), depth = k <= 0 ? 0 : k_blocks.start(kb + 1) - p0;
        const bool add = c.accumulate || kb > 0, last = kb + 1 == k_blocks.count;
        for (int mb = 0; mb < m_blocks.count; ++mb) {
            const int i0 = m_blocks.start(mb), rows = m_blocks.start(mb + 1) - i0;
            const Blocks panels(rows, MR);
            const float* a_from = a.transposed ? a.data + p0 * a.ld + i0 : a.data + i0 * a.ld + p0;
            std::ptrdiff_t a_row = a.transposed ? 1 : a.ld, a_k = a.transposed ? a.ld : 1;
            // A tall transposed a touches a new cache line per step of k; copied to rows, each
            // line is read once. Not worth it when few panels of b use the copy.
            if (a.transposed && n >= 6 * NR) {
                transpose(depth, rows, a_from, a.ld, a_block, depth);
                a_from = a_block, a_row = depth, a_k = 1;
            }
            const auto multiply = [&](int panel, int j, const float* from, std::ptrdiff_t stride) {
                const int i = panels.start(panel), height = panels.start(panel + 1) - i;
                const int columns = std::min(NR, n - j), vecs = (columns + WL - 1) / WL;
                Epilogue end;
                if (last) {  // member by member: a wide load would wait for their stores
                    if (epilogue.row_bias) end.row_bias = epilogue.row_bias + i0 + i;
                    if (epilogue.column_bias) end.column_bias = epilogue.column_bias + j;
                    end.relu = epilogue.relu;
                }
                const Tile run = TILES[height_index(height) * NV + vecs - 1];
                const int step = height < LOWEST ? 1 : height;
                for (int r = i; r < i + height; r += step) {
                    run({depth, a_from + r * a_row, a_row, a_k, from, stride},
                        {c.data + (i0 + r) * c.ld + j, c.ld, add}, columns, end);
                    if (end.row_bias) end.row_bias += step;
                }
            };
            // A b of few rows or little use is read where it lies; a small one stays in L1 while
            // the rows of a pass by once. Otherwise each panel of b is copied once and stays.
            const bool direct = !b.transposed && (rows < 64 || depth * b.ld <= 4096);
            int j = 0;
            if (direct && depth * full_columns <= 4096) {
                for (int panel = 0; panel < panels.count; ++panel) {
                    for (j = 0; j < full_columns; j += NR) {
                        multiply(panel, j, b.data + p0 * b.ld + j, b.ld);
                    }
                }
                j = full_columns;
            }
            for (; j < n; j += NR) {
                const float* from = b.data + p0 * b_k + j * b_column;
                std::ptrdiff_t stride = b.ld;
                if (!direct || j + NR > n) {
                    const int columns = std::min(NR, n - j), width = round_up(columns, WL);
                    pack_b(b.transposed, depth, columns, width, from, b.ld, b_panel);
                    from = b_panel, stride = width;
                }
                for (int panel = 0; panel < panels.count; ++panel) multiply(panel, j, from, stride);
            }
        }
    }
}

}  // namespace native
