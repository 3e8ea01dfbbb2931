// The transformer's element-wise passes, each one sweep over its rows: residual + dropout +
// LayerNorm, the feed-forward block's dropout, their gradients, sums over rows.
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

typedef std::uint16_t draw_vec __attribute__((vector_size(VL * 2)));

// Draws p[0..VL) as ints; lanes from `lanes` on are 0 and not read.
inline ivec load_draws(const std::uint16_t* p, int lanes = VL) {
    draw_vec x{};
    if (lanes >= VL) {
        std::memcpy(&x, p, sizeof x);
    } else {
        for (int i = 0; i < lanes; ++i) x[i] = p[i];
    }
    return __builtin_convertvector(x, ivec);
}

// Halves are added until one float is left: fewer dependent steps than lane by lane.
inline float sum_lanes(vec x) {
    alignas(64) float lanes[VL];
    std::memcpy(lanes, &x, sizeof x);
    quad sum;
    std::memcpy(&sum, lanes, sizeof sum);
    for (int i = 4; i < VL; i += 4) {
        quad next;
        std::memcpy(&next, lanes + i, sizeof next);
        sum += next;
    }
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

// sum (rows, columns) = x + dropout(branch), normalised: unit = (sum - mean) / deviation per row,
// y = unit * gain + bias. `inverse` (rows,) receives 1 / deviation, for the gradient.
inline void add_norm(int rows, int columns, std::ptrdiff_t ld, const float* x, const float* branch,
                     const Dropping& dropping, const float* gain, const float* bias, float* unit,
                     float* inverse, float* y) {
    const int last = round_up(columns, VL) - VL;
    const ivec exists = lanes() < columns - last;
    const int dropped = dropping.dropped;
    for (int r = 0; r < rows; ++r) {
        const std::uint16_t* draws =
            dropping.draws ? dropping.draws + std::ptrdiff_t(r) * columns : nullptr;
        vec total{};
        for (int j = 0; j <= last; j += VL) {
            vec add = load(branch + j);
            if (draws) {
                const ivec keep = load_draws(draws + j, columns - j) >= dropped;
                add = from_bits(keep & bits(add * dropping.scale));
            }
            const vec sum = load(x + j) + add;
            store(unit + j, sum);
            total += sum;
        }
        const float mean = sum_lanes(total) / columns;
        vec squares{};
        for (int j = 0; j < last; j += VL) {
            const vec centred = load(unit + j) - mean;
            squares += centred * centred;
        }
        const vec centred = from_bits(exists & bits(load(unit + last) - mean));
        squares += centred * centred;
        const float scale = 1 / sqrt(sum_lanes(squares) / columns + NORM_EPSILON);
        for (int j = 0; j <= last; j += VL) {
            vec normal = (load(unit + j) - mean) * scale;
            if (j == last) normal = from_bits(exists & bits(normal));
            store(unit + j, normal);
            store(y + j, normal * load(gain + j) + load(bias + j));
        }
        inverse[r] = scale;
        x += ld, branch += ld, unit += ld, y += ld;
    }
}

// The gradient of add_norm. `d_x` holds that of y and receives that of x; `d_branch` receives that
// of branch. The columns' sums go to d_gain, d_bias and, of d_branch, to d_branch_bias.
inline void add_norm_backward(int rows, int columns, std::ptrdiff_t ld, const Dropping& dropping,
                              const float* gain, const float* unit, const float* inverse,
                              float* d_x, float* d_branch, float* d_gain, float* d_bias,
                              float* d_branch_bias) {
    const int last = round_up(columns, VL) - VL;
    const ivec exists = lanes() < columns - last;
    const int dropped = dropping.dropped;
    for (float* sums : {d_gain, d_bias, d_branch_bias}) std::fill(sums, sums + last + VL, 0.0f);
    for (int r = 0; r < rows; ++r) {
        const std::uint16_t* draws =
            dropping.draws ? dropping.draws + std::ptrdiff_t(r) * columns : nullptr;
        vec total{}, along{};
        for (int j = 0; j <= last; j += VL) {
            const vec dy = load(d_x + j), normal = load(unit + j), product = dy * normal;
            const vec scaled = dy * load(gain + j);
            store(d_gain + j, load(d_gain + j) + product);
            store(d_bias + j, load(d_bias + j) + dy);
            total += scaled;
            along += scaled * normal;
        }
        const float scale = inverse[r];
        const float mean = sum_lanes(total) / columns, slope = sum_lanes(along) / columns;
        for (int j = 0; j <= last; j += VL) {
            vec dx = (load(d_x + j) * load(gain + j) - mean - load(unit + j) * slope) * scale;
            if (j == last) dx = from_bits(exists & bits(dx));
            store(d_x + j, dx);
            if (draws) {
                const ivec keep = load_draws(draws + j, columns - j) >= dropped;
                dx = from_bits(keep & bits(dx * dropping.scale));
            }
            store(d_branch + j, dx);
            store(d_branch_bias + j, load(d_branch_bias + j) + dx);
        }
        d_x += ld, d_branch += ld, unit += ld;
    }
}

// x (rows, columns) = dropout(x). Row r of the site's draws starts at draws + r * ld_draws.
inline void drop(int rows, int columns, float* x, std::ptrdiff_t ld, const Dropping& dropping,
                 std::ptrdiff_t ld_draws) {
    const int whole = columns / VL * VL, dropped = dropping.dropped;
    for (int r = 0; r < rows; ++r) {
        const std::uint16_t* draws = dropping.draws + r * ld_draws;
        float* row = x + r * ld;
        for (int j = 0; j < whole; j += VL) {
            const ivec keep = load_draws(draws + j) >= dropped;
            store(row + j, from_bits(keep & bits(load(row + j) * dropping.scale)));
        }
        for (int j = whole; j < columns; ++j) {
            row[j] = draws[j] >= dropped ? row[j] * dropping.scale : 0.0f;
        }
    }
}

// The gradient through dropout and ReLU, in place: their result y tells where both let it through.
// The columns' sums go to `sums`, a multiple of VL of them.
inline void drop_relu_backward(int rows, int columns, const float* y, std::ptrdiff_t ld_y,
                               float scale, float* gradient, std::ptrdiff_t ld, float* sums) {
    const int width = round_up(columns, VL);
    std::fill(sums, sums + width, 0.0f);
    for (int r = 0; r < rows; ++r) {
        for (int j = 0; j < width; j += VL) {
            // As in torch, a NaN lets the gradient through.
            const ivec stop = load(y + j) <= 0;
            const vec g = from_bits(~stop & bits(load(gradient + j) * scale));
            store(gradient + j, g);
            store(sums + j, load(sums + j) + g);
        }
        y += ld_y, gradient += ld;
    }
}

}  // namespace native
