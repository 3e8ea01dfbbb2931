// Eight lanes of floats, on every machine.
//
// This file and the compiler's flags (build.py) decide how the engine rounds. Contraction is off,
// so a product and a sum are fused where the code says fma() and nowhere else; a reduction runs
// over these eight lanes however wide the processor's registers are. No other operation that rounds
// is used than + - * / sqrt and fma, all of which IEEE 754 defines to the last bit.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#else
#error "no fused multiply-add for this target: see INSTRUCTIONS in build.py"
#endif

#if defined(__FAST_MATH__)
#error "fast-math would change the bits"
#endif

namespace native {

constexpr int VL = 8;

typedef float vec __attribute__((vector_size(VL * 4)));
typedef std::int32_t ivec __attribute__((vector_size(VL * 4)));
typedef std::uint32_t uvec __attribute__((vector_size(VL * 4)));  // may overflow
typedef float loose_vec __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef float quad __attribute__((vector_size(16)));
typedef float loose_quad __attribute__((vector_size(16), aligned(4), may_alias));

inline vec load(const float* p) { return *reinterpret_cast<const loose_vec*>(p); }
inline void store(float* p, vec x) { *reinterpret_cast<loose_vec*>(p) = x; }
inline vec splat(float x) { return x - vec{}; }  // x + 0 would turn -0 into 0

// a * b + c, rounded once.
inline vec fma(vec a, vec b, vec c) {
#if defined(__AVX2__)
    return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    float32x4_t x[2], y[2], z[2];
    std::memcpy(x, &a, sizeof a), std::memcpy(y, &b, sizeof b), std::memcpy(z, &c, sizeof c);
    for (int i = 0; i < 2; ++i) z[i] = vfmaq_f32(z[i], x[i], y[i]);
    std::memcpy(&c, z, sizeof c);
    return c;
#endif
}
inline vec fma(vec a, float b, vec c) { return fma(a, splat(b), c); }
inline vec fma(vec a, float b, float c) { return fma(a, splat(b), splat(c)); }
inline vec fma(vec a, vec b, float c) { return fma(a, b, splat(c)); }
inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

// Overloads beside fma() and exp(), so that no call here can mean one of libm's.
inline float sqrt(float x) { return __builtin_sqrtf(x); }
inline double sqrt(double x) { return __builtin_sqrt(x); }

inline ivec bits(vec x) { return reinterpret_cast<ivec>(x); }
inline vec from_bits(ivec x) { return reinterpret_cast<vec>(x); }
inline uvec unsigned_bits(vec x) { return reinterpret_cast<uvec>(x); }
inline vec from_bits(uvec x) { return reinterpret_cast<vec>(x); }
inline vec select(ivec mask, vec yes, vec no) { return mask ? yes : no; }
inline ivec load_ints(const std::int32_t* p) {
    ivec x;
    std::memcpy(&x, p, sizeof x);
    return x;
}

inline ivec lanes() { return ivec{0, 1, 2, 3, 4, 5, 6, 7}; }

// Halves are added until one float is left: fewer dependent steps than lane by lane.
inline float sum_lanes(vec x) {
    quad half[2];
    std::memcpy(half, &x, sizeof x);
    const quad sum = half[0] + half[1];
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

inline int round_up(int x, int multiple) { return (x + multiple - 1) / multiple * multiple; }

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
