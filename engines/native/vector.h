// Eight lanes of floats, on every machine, and as many as a register holds.
//
// This file and the compiler's flags (build.py) decide how the engine rounds. Contraction is off,
// so a product and a sum are fused where the code says fma() and nowhere else. A reduction across
// lanes runs over the eight of a `vec`, however wide the processor's registers are; where every
// lane is a result of its own, a `wide` serves, sixteen with AVX-512 and else the same eight. No
// other operation that rounds is used than + - * / sqrt and fma, all of which IEEE 754 defines to
// the last bit.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

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
#if defined(__AVX512F__)
constexpr int WL = 16;
#else
constexpr int WL = VL;
#endif

typedef float vec __attribute__((vector_size(VL * 4)));
typedef std::int32_t ivec __attribute__((vector_size(VL * 4)));
typedef float wide __attribute__((vector_size(WL * 4)));
typedef std::int32_t iwide __attribute__((vector_size(WL * 4)));
typedef float loose_vec __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef float quad __attribute__((vector_size(16)));
typedef float loose_quad __attribute__((vector_size(16), aligned(4), may_alias));

template <class V>
constexpr int LANES = sizeof(V) / 4;

// What overloads for vectors of floats, of either width, begin with.
#define FOR_VECTORS template <class V, class = std::enable_if_t<(sizeof(V) > sizeof(float))>>

template <class V = vec>
V load(const float* p) {
    V x;
    std::memcpy(&x, p, sizeof x);
    return x;
}
template <class V>
void store(float* p, V x) {
    std::memcpy(p, &x, sizeof x);
}
template <class V = vec>
V splat(float x) {
    return x - V{};  // x + 0 would turn -0 into 0
}

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
#if defined(__AVX512F__)
inline wide fma(wide a, wide b, wide c) {
    return (wide)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
#endif
inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
FOR_VECTORS V fma(V a, float b, V c) { return fma(a, splat<V>(b), c); }
FOR_VECTORS V fma(V a, float b, float c) { return fma(a, splat<V>(b), splat<V>(c)); }
FOR_VECTORS V fma(V a, V b, float c) { return fma(a, b, splat<V>(c)); }

// Overloads beside fma() and exp(), so that no call here can mean one of libm's.
inline float sqrt(float x) { return __builtin_sqrtf(x); }
inline double sqrt(double x) { return __builtin_sqrt(x); }

// The bits of floats as ints, signed or not (which may overflow), and back.
template <class V>
struct Bits {
    typedef std::int32_t Signed __attribute__((vector_size(sizeof(V))));
    typedef std::uint32_t Unsigned __attribute__((vector_size(sizeof(V))));
};
FOR_VECTORS typename Bits<V>::Signed bits(V x) { return (typename Bits<V>::Signed)x; }
FOR_VECTORS typename Bits<V>::Unsigned unsigned_bits(V x) { return (typename Bits<V>::Unsigned)x; }
template <class V = vec>
V from_bits(typename Bits<V>::Signed x) {
    return (V)x;
}
template <class V = vec>
V from_bits(typename Bits<V>::Unsigned x) {
    return (V)x;
}
FOR_VECTORS V select(typename Bits<V>::Signed mask, V yes, V no) { return mask ? yes : no; }
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

inline float largest_lane(vec x) {
    quad half[2];
    std::memcpy(half, &x, sizeof x);
    const quad four = half[0] > half[1] ? half[0] : half[1];
    return std::max(std::max(four[0], four[2]), std::max(four[1], four[3]));
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

// to[j][i] = from[i][j] for four rows and columns.
inline void transpose_quads(const float* from, std::ptrdiff_t ld_from, float* to,
                            std::ptrdiff_t ld_to) {
    const quad a = *reinterpret_cast<const loose_quad*>(from);
    const quad b = *reinterpret_cast<const loose_quad*>(from + ld_from);
    const quad c = *reinterpret_cast<const loose_quad*>(from + 2 * ld_from);
    const quad d = *reinterpret_cast<const loose_quad*>(from + 3 * ld_from);
    const quad ac_low = interleave_low(a, c), bd_low = interleave_low(b, d);
    const quad ac_high = interleave_high(a, c), bd_high = interleave_high(b, d);
    *reinterpret_cast<loose_quad*>(to) = interleave_low(ac_low, bd_low);
    *reinterpret_cast<loose_quad*>(to + ld_to) = interleave_high(ac_low, bd_low);
    *reinterpret_cast<loose_quad*>(to + 2 * ld_to) = interleave_low(ac_high, bd_high);
    *reinterpret_cast<loose_quad*>(to + 3 * ld_to) = interleave_high(ac_high, bd_high);
}

// to (columns x rows) = transpose of from (rows x columns), four by four. The last ones may repeat
// some of those before.
inline void transpose(int rows, int columns, const float* from, std::ptrdiff_t ld_from, float* to,
                      std::ptrdiff_t ld_to) {
    if (rows < 4 || columns < 4) {
        for (int i = 0; i < rows; ++i) {
            for (int j = 0; j < columns; ++j) to[j * ld_to + i] = from[i * ld_from + j];
        }
        return;
    }
    const auto four_rows = [&](int i) {
        const float* in = from + i * ld_from;
        int j = 0;
        for (; j + 4 <= columns; j += 4) transpose_quads(in + j, ld_from, to + j * ld_to + i, ld_to);
        if (j < columns) {
            j = columns - 4;
            transpose_quads(in + j, ld_from, to + j * ld_to + i, ld_to);
        }
    };
    int i = 0;
    for (; i + 4 <= rows; i += 4) four_rows(i);
    if (i < rows) four_rows(rows - 4);
}

}  // namespace native
