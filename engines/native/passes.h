// The transformers' element-wise passes, each one sweep over its rows: residual + dropout +
// LayerNorm, the feed-forward blocks' dropout and GELU, their gradients, sums over rows.
//
// Rows of `columns` floats have a stride that is a multiple of VL; what lies between is padding,
// which must be 0 and stays 0.
#pragma once

#include "kernels.h"

namespace native {

constexpr float NORM_EPSILON = 1e-5f;

// The dropout of one site: element i is zeroed if draws[i] < dropped. No dropout without draws.
struct Dropping {
    const std::uint16_t* draws = nullptr;
    int dropped = 0;
    float scale = 1;
};

// As many draws as V has lanes, from p on, as ints.
template <class V = vec>
typename Bits<V>::Signed load_draws(const std::uint16_t* p) {
    typedef std::uint16_t Draws __attribute__((vector_size(sizeof(V) / 2)));
    Draws x;
    std::memcpy(&x, p, sizeof x);
    return __builtin_convertvector(x, typename Bits<V>::Signed);
}

// Lanes from `exist` on are 0, but read: behind the last draw of a step there is room for that.
inline ivec load_draws(const std::uint16_t* p, int exist) {
    return load_draws(p) & (lanes() < exist);
}

// A matrix of activations: `rows` rows of `columns` floats with stride ld.
struct Extent {
    int rows, columns;
    std::ptrdiff_t ld;

    int last_vector() const { return round_up(columns, VL) - VL; }
};

// A LayerNorm with what its backward pass needs: `unit` (rows, columns) is its input, centred and
// scaled to variance 1; `inverse` (rows,) is 1 / deviation.
struct Norm {
    const float *gain, *bias;
    float *unit, *inverse;
};

// y (rows, columns) = LayerNorm(sum), sum = x + dropout(branch); without x, of the branch alone.
// `sum` may be x, or norm.unit where it is of no use.
inline void add_norm(const Extent& size, const float* x, const float* branch,
                     const Dropping& dropping, const Norm& norm, float* sum, float* y) {
    const int last = size.last_vector(), columns = size.columns, dropped = dropping.dropped;
    const ivec exists = lanes() < columns - last;
    float* unit = norm.unit;
    for (int r = 0; r < size.rows; ++r) {
        const std::uint16_t* draws =
            dropping.draws ? dropping.draws + std::ptrdiff_t(r) * columns : nullptr;
        vec total{};
        for (int j = 0; j <= last; j += VL) {
            vec add = load(branch + j);
            if (draws) {
                const ivec keep = load_draws(draws + j, columns - j) >= dropped;
                add = from_bits(keep & bits(add * dropping.scale));
            }
            if (x) add = load(x + j) + add;
            store(sum + j, add);
            total += add;
        }
        const float mean = sum_lanes(total) / float(columns);
        vec squares{};
        for (int j = 0; j < last; j += VL) {
            const vec centred = load(sum + j) - mean;
            squares = fma(centred, centred, squares);
        }
        const vec centred = from_bits(exists & bits(load(sum + last) - mean));
        squares = fma(centred, centred, squares);
        const float scale = 1 / sqrt(sum_lanes(squares) / float(columns) + NORM_EPSILON);
        for (int j = 0; j <= last; j += VL) {
            vec normal = (load(sum + j) - mean) * scale;
            if (j == last) normal = from_bits(exists & bits(normal));
            store(unit + j, normal);
            store(y + j, fma(normal, load(norm.gain + j), load(norm.bias + j)));
        }
        norm.inverse[r] = scale;
        if (x) x += size.ld;
        branch += size.ld, sum += size.ld, unit += size.ld, y += size.ld;
    }
}

// What the column sums of add_norm_backward are added to.
struct NormSums {
    float *gain, *bias, *branch_bias;

    void clear(int columns) const {
        for (float* sums : {gain, bias, branch_bias}) {
            std::fill(sums, sums + round_up(columns, VL), 0.0f);
        }
    }
};

// The gradient of add_norm, from that of y. `d_x` receives that of the sum, which is also x's; if
// ADDS, it holds what else the sum is used for. `d_branch` receives that of branch. `d_y` may be
// d_x without ADDS, and d_branch.
template <bool ADDS>
void add_norm_backward(const Extent& size, const Dropping& dropping, const Norm& norm,
                       const float* d_y, float* d_x, float* d_branch, const NormSums& to) {
    const int last = size.last_vector(), columns = size.columns, dropped = dropping.dropped;
    const ivec exists = lanes() < columns - last;
    const float* unit = norm.unit;
    for (int r = 0; r < size.rows; ++r) {
        const std::uint16_t* draws =
            dropping.draws ? dropping.draws + std::ptrdiff_t(r) * columns : nullptr;
        vec total{}, along{};
        for (int j = 0; j <= last; j += VL) {
            const vec dy = load(d_y + j), normal = load(unit + j);
            const vec scaled = dy * load(norm.gain + j);
            store(to.gain + j, fma(dy, normal, load(to.gain + j)));
            store(to.bias + j, load(to.bias + j) + dy);
            total += scaled;
            along = fma(scaled, normal, along);
        }
        const float scale = norm.inverse[r];
        const float mean = sum_lanes(total) / float(columns);
        const float slope = sum_lanes(along) / float(columns);
        for (int j = 0; j <= last; j += VL) {
            const vec centred = fma(load(d_y + j), load(norm.gain + j), -mean);
            vec dx = fma(load(unit + j), -slope, centred) * scale;
            if (j == last) dx = from_bits(exists & bits(dx));
            if (ADDS) dx += load(d_x + j);
            store(d_x + j, dx);
            if (draws) {
                const ivec keep = load_draws(draws + j, columns - j) >= dropped;
                dx = from_bits(keep & bits(dx * dropping.scale));
            }
            store(d_branch + j, dx);
            store(to.branch_bias + j, load(to.branch_bias + j) + dx);
        }
        d_y += size.ld, d_x += size.ld, d_branch += size.ld, unit += size.ld;
    }
}

// x (rows, columns) = dropout(x). Row r of the site's draws starts at draws + r * ld_draws.
inline void drop(const Extent& size, float* x, const Dropping& dropping, std::ptrdiff_t ld_draws) {
    const int columns = size.columns, whole = columns / WL * WL, dropped = dropping.dropped;
    for (int r = 0; r < size.rows; ++r) {
        const std::uint16_t* draws = dropping.draws + r * ld_draws;
        float* row = x + r * size.ld;
        for (int j = 0; j < whole; j += WL) {
            const iwide keep = load_draws<wide>(draws + j) >= dropped;
            store(row + j, from_bits<wide>(keep & bits(load<wide>(row + j) * dropping.scale)));
        }
        for (int j = whole; j < columns; ++j) {
            row[j] = draws[j] >= dropped ? row[j] * dropping.scale : 0.0f;
        }
    }
}

// gradient (rows, columns) = value(r, j, lanes of it), in place, a vector at a time, and its columns'
// sums, whose vectors are whole.
template <class Value>
void each_gradient(const Extent& size, float* gradient, float* sums, const Value& value) {
    const int width = round_up(size.columns, VL);
    std::fill(sums, sums + width, 0.0f);
    const auto one = [&]<class V>(V, int r, int j) {
        const V g = value(r, j, load<V>(gradient + j));
        store(gradient + j, g);
        store(sums + j, load<V>(sums + j) + g);
    };
    for (int r = 0; r < size.rows; ++r) {
        int j = 0;
        for (; j + WL <= width; j += WL) one(wide{}, r, j);
        for (; j < width; j += VL) one(vec{}, r, j);
        gradient += size.ld;
    }
}

// The gradient through dropout and ReLU, in place: their result y, of the same stride, tells where
// both let it through. The columns' sums go to `sums`, a multiple of VL of them.
inline void drop_relu_backward(const Extent& size, const float* y, float scale, float* gradient,
                               float* sums) {
    each_gradient(size, gradient, sums, [=]<class V>(int r, int j, V g) {
        // As in torch, a NaN lets the gradient through.
        const auto stop = load<V>(y + r * size.ld + j) <= 0;
        return from_bits<V>(~stop & bits(g * scale));
    });
}

template <class V>
void gelu_lanes(float* x, float* slope) {
    const Gelu<V> y = gelu(load<V>(x));
    store(x, y.value);
    if (slope) store(slope, y.slope);
}

// x = GELU(x) in place; `slope`, of the same stride, receives the derivatives unless it is null.
inline void gelu_rows(const Extent& size, float* x, float* slope) {
    for (int r = 0; r < size.rows; ++r) {
        int j = 0;
        for (; j + WL <= size.columns; j += WL) gelu_lanes<wide>(x + j, slope ? slope + j : nullptr);
        for (; j < size.columns; j += VL) gelu_lanes<vec>(x + j, slope ? slope + j : nullptr);
        x += size.ld;
        if (slope) slope += size.ld;
    }
}

// The gradient through GELU, in place, and its columns' sums, as for ReLU.
inline void gelu_backward(const Extent& size, const float* slope, float* gradient, float* sums) {
    each_gradient(size, gradient, sums, [=]<class V>(int r, int j, V g) {
        return g * load<V>(slope + r * size.ld + j);
    });
}

}  // namespace native
