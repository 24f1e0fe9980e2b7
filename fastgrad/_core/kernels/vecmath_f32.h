/* Elementary functions of float32 as straight-line C.
 *
 * The single-precision sister of vecmath_f64.h: the same methods, promises and
 * conventions, with polynomials for 24 bits and twice the elements a vector.
 * Most functions compute in float throughout.  hypot computes in double;
 * gammaln and digamma are those of float64; without FMA sin, cos, tan, power
 * and the remainders go through double too.
 *
 * This file knows nothing about arrays, strides, loops or derivatives.
 */
#ifndef FASTGRAD_VECMATH_F32_H
#define FASTGRAD_VECMATH_F32_H

#include "vecmath_f64.h"

/* ------------------------------------------------------------------ bits */

#define FG_INF_F32 ((float)INFINITY)
#define FG_NAN_F32 ((float)NAN)
#define FG_MIN_F32 1.17549435e-38f /* the smallest normal number */

/* Adding 1.5 * 2**23 rounds |x| < 2**22 to an integer, in the low bits. */
#define FG_MAGIC_F32 12582912.0f
#define FG_TWO23_F32 8388608.0f

FG_INLINE uint32_t fg_bits_f32(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

FG_INLINE float fg_from_bits_f32(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* a*b + c: one rounding where the processor has FMA, two elsewhere. */
FG_INLINE float fg_mad_f32(float a, float b, float c)
{
#if FG_HAVE_FMA
    return fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

/* x with 12 bits of significand: products of two are exact. */
FG_INLINE float fg_head_f32(float x)
{
    return fg_from_bits_f32(fg_bits_f32(x) & 0xfffff000u);
}

/* a*b - p exactly, for p = fl(a*b), away from overflow and underflow. */
FG_INLINE float fg_mul_error_f32(float a, float b, float p)
{
#if FG_HAVE_FMA
    return fmaf(a, b, -p);
#else
    float ah = fg_head_f32(a), al = a - ah;
    float bh = fg_head_f32(b), bl = b - bh;
    return ((ah * bh - p) + ah * bl + al * bh) + al * bl;
#endif
}

/* An unevaluated sum hi + lo, |lo| small against |hi|. */
typedef struct {
    float hi, lo;
} fg_pair_f32;

/* ----------------------------------------------------------- polynomials */

/* Horner's rule in x, lowest coefficient first. */
FG_INLINE float fg_horner2_f32(float x, float c0, float c1)
{
    return fg_mad_f32(c1, x, c0);
}

FG_INLINE float fg_horner3_f32(float x, float c0, float c1, float c2)
{
    return fg_mad_f32(fg_horner2_f32(x, c1, c2), x, c0);
}

FG_INLINE float fg_horner4_f32(float x, float c0, float c1, float c2, float c3)
{
    return fg_mad_f32(fg_horner3_f32(x, c1, c2, c3), x, c0);
}

/* fg_polyN_f32(x, c0 ... ): N coefficients by Estrin's scheme. */
FG_INLINE float fg_poly4_f32(float x, float c0, float c1, float c2, float c3)
{
    float x2 = x * x;
    float p0 = fg_mad_f32(fg_mad_f32(c3, x, c2), x2, fg_mad_f32(c1, x, c0));
    return p0;
}

FG_INLINE float fg_poly5_f32(float x, float c0, float c1, float c2, float c3, float c4)
{
    float x2 = x * x;
    float x4 = x2 * x2;
    float p0 = fg_mad_f32(fg_mad_f32(c3, x, c2), x2, fg_mad_f32(c1, x, c0));
    return fg_mad_f32(c4, x4, p0);
}

FG_INLINE float fg_poly6_f32(float x, float c0, float c1, float c2, float c3, float c4,
    float c5)
{
    float x2 = x * x;
    float x4 = x2 * x2;
    float p0 = fg_mad_f32(fg_mad_f32(c3, x, c2), x2, fg_mad_f32(c1, x, c0));
    float p4 = fg_mad_f32(c5, x, c4);
    return fg_mad_f32(p4, x4, p0);
}

FG_INLINE float fg_poly7_f32(float x, float c0, float c1, float c2, float c3, float c4,
    float c5, float c6)
{
    float x2 = x * x;
    float x4 = x2 * x2;
    float p0 = fg_mad_f32(fg_mad_f32(c3, x, c2), x2, fg_mad_f32(c1, x, c0));
    float p4 = fg_mad_f32(c6, x2, fg_mad_f32(c5, x, c4));
    return fg_mad_f32(p4, x4, p0);
}

FG_INLINE float fg_poly8_f32(float x, float c0, float c1, float c2, float c3, float c4,
    float c5, float c6, float c7)
{
    float x2 = x * x;
    float x4 = x2 * x2;
    float p0 = fg_mad_f32(fg_mad_f32(c3, x, c2), x2, fg_mad_f32(c1, x, c0));
    float p4 = fg_mad_f32(fg_mad_f32(c7, x, c6), x2, fg_mad_f32(c5, x, c4));
    return fg_mad_f32(p4, x4, p0);
}

FG_INLINE float fg_poly12_f32(float x, float c0, float c1, float c2, float c3, float c4,
    float c5, float c6, float c7, float c8, float c9, float c10, float c11)
{
    float x2 = x * x;
    float x4 = x2 * x2;
    float x8 = x4 * x4;
    float p0 = fg_mad_f32(fg_mad_f32(c3, x, c2), x2, fg_mad_f32(c1, x, c0));
    float p4 = fg_mad_f32(fg_mad_f32(c7, x, c6), x2, fg_mad_f32(c5, x, c4));
    float p8 = fg_mad_f32(fg_mad_f32(c11, x, c10), x2, fg_mad_f32(c9, x, c8));
    float q4_0 = fg_mad_f32(p4, x4, p0);
    return fg_mad_f32(p8, x8, q4_0);
}

/* ------------------------------------------------------- exponentials */

/* 2**k y for -160 <= k <= 129, where t = k + FG_SCALE_MAGIC_F32: the power in two
 * factors. */
#define FG_SCALE_MAGIC_F32 (FG_MAGIC_F32 + 254.0f)
FG_INLINE float fg_scale_f32(float y, float t)
{
    uint32_t m = fg_bits_f32(t) & 0x3ff;
    uint32_t h = m >> 1;
    return y * fg_from_bits_f32(h << 23) * fg_from_bits_f32((m - h) << 23);
}

/* 2**k for -126 <= k <= 127, where t = k + FG_POW2_MAGIC_F32. */
#define FG_POW2_MAGIC_F32 (FG_MAGIC_F32 + 127.0f)
FG_INLINE float fg_pow2_f32(float t)
{
    return fg_from_bits_f32(fg_bits_f32(t) << 23);
}

#define FG_LOG2E_F32 1.44269504f
#define FG_LN2_HI_F32 0.693145752f /* 15 bits: k * hi is exact */
#define FG_LN2_LO_F32 1.42860677e-06f

/* (e**r - 1 - r) / r**2: minimax (Remez), error 2**-28.3 relative to e**r. */
FG_INLINE float fg_exp_tail_f32(float r)
{
    return fg_poly5_f32(r,
        0.49999994f, 0.16666521f, 0.04166839f, 0.008368745f, 0.0013814563f);
}

/* Below 1.1 ulp. */
FG_INLINE float fg_exp_f32(float x)
{
    float c = x > 89.0f ? 89.0f : x;
    float y = c < -104.0f ? -104.0f : c;
    float t = fg_mad_f32(y, FG_LOG2E_F32, FG_SCALE_MAGIC_F32);
    float k = t - FG_SCALE_MAGIC_F32;
    float r = fg_mad_f32(k, -FG_LN2_LO_F32, fg_mad_f32(k, -FG_LN2_HI_F32, y));
    float p = fg_mad_f32(r * r, fg_exp_tail_f32(r), r);
    return fg_scale_f32(1.0f + p, t);
}

/* (2**r - 1 - r ln 2) / r**2: minimax (Remez), error 2**-28.3.  Below 1.2 ulp. */
FG_INLINE float fg_exp2_f32(float x)
{
    float c = x > 128.0f ? 128.0f : x;
    float y = c < -151.0f ? -151.0f : c;
    float t = y + FG_SCALE_MAGIC_F32;
    float r = y - (t - FG_SCALE_MAGIC_F32);
    float tail = fg_poly5_f32(r,
        0.24022648f, 0.05550362f, 0.009618527f, 0.001339023f, 0.00015321081f);
    float p = fg_mad_f32(r * r, tail, r * 0.693147182f);
    return fg_scale_f32(1.0f + p, t);
}

/* (e**x - 1) 2**shift as hi + lo for -87 <= x <= 89 and shift 0 or -1; minimax
 * (Remez), error 2**-32.0 relative to r. */
FG_INLINE fg_pair_f32 fg_expm1_pair_f32(float x, float shift)
{
    float t = fg_mad_f32(x, FG_LOG2E_F32, FG_POW2_MAGIC_F32);
    float k = t - FG_POW2_MAGIC_F32;
    float r0 = fg_mad_f32(k, -FG_LN2_HI_F32, x);
    float r = fg_mad_f32(k, -FG_LN2_LO_F32, r0);
    float rlo = fg_mad_f32(k, -FG_LN2_LO_F32, r0 - r);
    float tail = fg_mad_f32(r * r, fg_poly6_f32(r,
        0.5f, 0.16666667f, 0.041666355f, 0.008333273f, 0.0013941053f,
        0.00019913905f), rlo);
    float s = fg_pow2_f32(t + shift);
    float c = s - (shift == 0.0f ? 1.0f : 0.5f);
    float sr = s * r;
    fg_pair_f32 out;
    out.hi = c + sr;
    out.lo = fg_mad_f32(s, tail, (c - out.hi) + sr);
    return out;
}

/* Below 1.1 ulp. */
FG_INLINE float fg_expm1_f32(float x)
{
    float c = x > 89.0f ? 89.0f : x;
    float y = c < -20.0f ? -20.0f : c;
    fg_pair_f32 e = fg_expm1_pair_f32(y, -1.0f);
    float result = (e.hi + e.lo) * 2.0f;
    return fabsf(x) < 1e-8f ? x : result;
}

/* num / den, den = d.hi + d.lo in [1, 2]: see fg_divide_12_f64. */
FG_INLINE float fg_divide_12_f32(fg_pair_f32 n, fg_pair_f32 d)
{
    float q = n.hi / d.hi;
    float e = fg_mad_f32(-q, d.lo, n.lo);
#if FG_HAVE_FMA
    e += fmaf(-q, d.hi, n.hi);
#endif
    return fg_mad_f32(e, fg_mad_f32(d.hi, -0.5f, 1.457f), q);
}

/* x + x**3 P(x*x) below 0.6 (minimax, Remez), 1 - 2 / (e**2|x| + 1) above.
 * Below 1.4 ulp. */
FG_INLINE float fg_tanh_f32(float x)
{
    float a = fabsf(x);
    float b = a > 10.0f ? 10.0f : a;
    float z = x * x;
    float small = fg_mad_f32(z * b, fg_poly5_f32(z,
        -0.333333f, 0.13331924f, -0.05378383f, 0.02079597f, -0.0058951555f), b);
    float t = fg_mad_f32(b, 2.0f * FG_LOG2E_F32, FG_POW2_MAGIC_F32);
    float k = t - FG_POW2_MAGIC_F32;
    float r = fg_mad_f32(k, -FG_LN2_LO_F32, fg_mad_f32(k, -FG_LN2_HI_F32, b + b));
    float p = fg_mad_f32(r * r, fg_exp_tail_f32(r), r) + 1.0f;
    float large = 1.0f - 2.0f / fg_mad_f32(p, fg_pow2_f32(t), 1.0f);
    return copysignf(a < 0.6f ? small : large, x);
}

/* Below 1.8 ulp. */
FG_INLINE float fg_sigmoid_f32(float x)
{
    float z = fg_exp_f32(-fabsf(x));
    fg_pair_f32 n, d;
    n.hi = x < 0.0f ? z : 1.0f;
    n.lo = 0.0f;
    d.hi = 1.0f + z;
    d.lo = (1.0f - d.hi) + z;
    return fg_divide_12_f32(n, d);
}

/* e**a / 4 for 0 <= a <= 89.5. */
FG_INLINE float fg_exp_quarter_f32(float a)
{
    float t = fg_mad_f32(a, FG_LOG2E_F32, FG_POW2_MAGIC_F32);
    float k = t - FG_POW2_MAGIC_F32;
    float r = fg_mad_f32(k, -FG_LN2_LO_F32, fg_mad_f32(k, -FG_LN2_HI_F32, a));
    float p = fg_mad_f32(r * r, fg_exp_tail_f32(r), r);
    return (1.0f + p) * fg_pow2_f32(t - 2.0f);
}

/* x + x**3 P(x*x) below 1 (minimax, Remez), from the exponential above.
 * Below 1.6 ulp. */
FG_INLINE float fg_sinh_f32(float x)
{
    float a = fabsf(x);
    float b = a > 89.5f ? 89.5f : a;
    float q = fg_exp_quarter_f32(b);
    float z = b * b;
    float small = fg_mad_f32(z * b, fg_poly4_f32(z,
        0.16666667f, 0.00833335f, 0.0001983616f, 2.8169513e-06f), b);
    float large = fg_mad_f32(2.0f, q, -0.125f / q);
    return copysignf(a < 1.0f ? small : large, x);
}

/* Below 1.4 ulp. */
FG_INLINE float fg_cosh_f32(float x)
{
    float a = fabsf(x);
    float q = fg_exp_quarter_f32(a > 89.5f ? 89.5f : a);
    return fg_mad_f32(2.0f, q, 0.125f / q);
}

/* --------------------------------------------------------- logarithms */

/* x = 2**k (1 + f), 1 + f in [sqrt(1/2), sqrt(2)), for normal x > 0. */
typedef struct {
    float k, f;
} fg_split_f32;

FG_INLINE fg_split_f32 fg_log_split_f32(float x)
{
    uint32_t u = fg_bits_f32(x) + (0x3f800000u - 0x3f3504f3u);
    fg_split_f32 out;
    out.k = (float)((int32_t)(u >> 23) - 127);
    out.f = fg_from_bits_f32((u & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
    return out;
}

/* The same for any finite x > 0. */
FG_INLINE fg_split_f32 fg_log_split_any_f32(float x)
{
    int small = x < FG_MIN_F32;
    fg_split_f32 out = fg_log_split_f32(x * (small ? 33554432.0f : 1.0f));
    out.k -= small ? 25.0f : 0.0f;
    return out;
}

/* f - log(1+f) = f*f (1/2 - f P(f)), P minimax (Remez), error 2**-27.4 relative
 * to the log. */
FG_INLINE float fg_log_deficit_f32(float f)
{
    float p = fg_poly8_f32(f,
        0.3333333f, -0.25000823f, 0.20001234f, -0.16623299f, 0.14201535f,
        -0.1316056f, 0.12763421f, -0.07635821f);
    return f * f * fg_mad_f32(-f, p, 0.5f);
}

/* What a logarithm is outside (0, inf). */
FG_INLINE float fg_log_special_f32(float x, float result)
{
    float below = x == 0.0f ? -FG_INF_F32 : FG_NAN_F32;
    float above = x < FG_INF_F32 ? result : x;
    return x > 0.0f ? above : below;
}

/* Below 0.9 ulp. */
FG_INLINE float fg_log_f32(float x)
{
    fg_split_f32 a = fg_log_split_any_f32(x);
    float d = fg_mad_f32(a.k, -FG_LN2_LO_F32, fg_log_deficit_f32(a.f));
    return fg_log_special_f32(x, fg_mad_f32(a.k, FG_LN2_HI_F32, a.f - d));
}

/* Below 1.8 ulp. */
FG_INLINE float fg_log2_f32(float x)
{
    fg_split_f32 a = fg_log_split_any_f32(x);
    float l = a.f - fg_log_deficit_f32(a.f);
    return fg_log_special_f32(x, fg_mad_f32(l, FG_LOG2E_F32, a.k));
}

/* Below 1.9 ulp. */
FG_INLINE float fg_log10_f32(float x)
{
    fg_split_f32 a = fg_log_split_any_f32(x);
    float l = a.f - fg_log_deficit_f32(a.f);
    float m = fg_mad_f32(l, 0.434294492f, a.k * 4.60503907e-06f);
    return fg_log_special_f32(x, fg_mad_f32(a.k, 0.301025391f, m)); /* 14 bits: exact */
}

/* k0 ln 2 + log(1 + hi + lo) for finite hi > -1: see fg_log1p_pair_f64. */
FG_INLINE float fg_log1p_pair_f32(float hi, float lo, float k0)
{
    float u = 1.0f + hi;
    float b = u - 1.0f;
    float c = ((1.0f - (u - b)) + (hi - b)) + lo;
    fg_split_f32 a = fg_log_split_f32(u);
    float down = fg_pow2_f32(FG_POW2_MAGIC_F32 - (a.k > 100.0f ? 100.0f : a.k));
    float g = c * down;
    float k = a.k + k0;
    float e = g * fg_mad_f32(a.f, fg_mad_f32(a.f, 0.85f, -1.0f), 1.0f);
    float d = fg_log_deficit_f32(a.f) - fg_mad_f32(k, FG_LN2_LO_F32, e);
    return fg_mad_f32(k, FG_LN2_HI_F32, a.f - d);
}

/* Below 1 ulp. */
FG_INLINE float fg_log1p_f32(float x)
{
    float y = fg_log1p_pair_f32(x, 0.0f, 0.0f);
    float below = x == -1.0f ? -FG_INF_F32 : FG_NAN_F32;
    float result = fabsf(x) < 1e-8f ? x : y;
    float above = x < FG_INF_F32 ? result : x;
    return x > -1.0f ? above : below;
}

/* Below 1.8 ulp. */
FG_INLINE float fg_softplus_f32(float x)
{
    float z = fg_exp_f32(-fabsf(x));
    float y = fg_log1p_pair_f32(z, 0.0f, 0.0f);
    return (x < 0.0f ? 0.0f : x) + (z < 1e-8f ? z : y);
}

/* Below 1.8 ulp away from its zeros; near them the absolute error is below
 * 1.2e-7. */
FG_INLINE float fg_logaddexp_f32(float x, float y)
{
    float m = x > y ? x : y;
    float d = x == y ? 0.0f : fabsf(x - y);
    float z = fg_exp_f32(-d);
    float s = m + fg_log1p_pair_f32(z, 0.0f, 0.0f);
    return d == d ? s : x + y;
}

FG_INLINE float fg_logaddexp2_f32(float x, float y)
{
    float m = x > y ? x : y;
    float d = x == y ? 0.0f : fabsf(x - y);
    float z = fg_exp2_f32(-d);
    float s0 = fg_mad_f32(fg_log1p_pair_f32(z, 0.0f, 0.0f), FG_LOG2E_F32, m);
    float s = d == 0.0f ? m + 1.0f : s0;
    return d == d ? s : x + y;
}

/* Below 1.3 ulp. */
FG_INLINE float fg_arcsinh_f32(float x)
{
    float a = fabsf(x);
    float t = a * a / (1.0f + sqrtf(fg_mad_f32(a, a, 1.0f)));
    float w = a + t;
    int large = a > 1073741824.0f;
    float hi = large ? a : w;
    float lo = large ? 0.0f : (a - w) + t;
    float y = fg_log1p_pair_f32(hi, lo, large ? 1.0f : 0.0f);
    float result = a < 1e-5f ? a : y;
    return copysignf(a < FG_INF_F32 ? result : a, x);
}

/* Below 1.7 ulp. */
FG_INLINE float fg_arccosh_f32(float x)
{
    float t = x - 1.0f;
    float v = fg_mad_f32(t, t, 2.0f * t);
    float s = sqrtf(v);
    float w = t + s;
    int large = x > 1073741824.0f;
    float hi = large ? x : w;
    float lo = large ? 0.0f : (s - w) + t;
    float y = fg_log1p_pair_f32(hi, lo, large ? 1.0f : 0.0f);
    float outside = x < 1.0f ? FG_NAN_F32 : x;
    return (x >= 1.0f) & (x < FG_INF_F32) ? y : outside;
}

/* As in float64; error 2**-31.  Below 1.4 ulp. */
FG_INLINE float fg_arctanh_f32(float x)
{
    float a = fabsf(x);
    float u = 1.0f + a, v = 1.0f - a;
    uint32_t k = (fg_bits_f32(u) - fg_bits_f32(v) + 0x00200000u) >> 23;
    float scale = fg_from_bits_f32((k + 127) << 23);
    float kd = (float)(int32_t)k;
    float w = scale * v;
    float ulo = (1.0f - u) + a, vlo = (1.0f - v) - a;
    float s = ((u - w) + fg_mad_f32(-scale, vlo, ulo)) / (u + w);
    float z = s * s;
    float series = fg_poly4_f32(z,
        0.66666603f, 0.40007535f, 0.28293043f, 0.26204175f);
    float p = fg_mad_f32(s * z, 0.5f * series, kd * (0.5f * FG_LN2_LO_F32));
    float y = fg_mad_f32(kd, 0.5f * FG_LN2_HI_F32, s + p);
    float outside = a == 1.0f ? FG_INF_F32 : FG_NAN_F32;
    return copysignf(a < 1.0f ? y : outside, x);
}

/* ------------------------------------------------------ trigonometry */

#define FG_TRIG_LIMIT_F32 1e5f

#if FG_HAVE_FMA

/* x = k pi/2 + hi + lo, |hi| <= pi/4, for |x| <= FG_TRIG_LIMIT_F32; pi/2 in three
 * parts of 24 bits. */
typedef struct {
    float hi, lo;
    uint32_t bits;
} fg_reduced_f32;

FG_INLINE fg_reduced_f32 fg_trig_reduce_f32(float x)
{
    float t = fmaf(x, 0.636619747f, FG_MAGIC_F32);
    float k = t - FG_MAGIC_F32;
    float r0 = fmaf(-k, 1.57079637f, x);
    float w = k * -4.37113883e-08f;
    float wlo = fmaf(k, -4.37113883e-08f, -w);
    float r1 = r0 - w;
    float e = ((r0 - r1) - w) - wlo;
    fg_reduced_f32 out;
    e = fmaf(-k, -1.71512451e-15f, e);
    out.hi = r1 + e;
    out.lo = (r1 - out.hi) + e;
    out.bits = fg_bits_f32(t);
    return out;
}

/* sin(hi + lo) = hi + tail: minimax (Remez), error 2**-28.0. */
FG_INLINE float fg_sin_tail_f32(float hi, float lo)
{
    float z = hi * hi;
    float p = fg_horner3_f32(z,
        -0.16666655f, 0.008332177f, -0.0001951717f);
    return fmaf(z * hi, p, lo);
}

/* cos(hi + lo): minimax (Remez), error 2**-33.0. */
FG_INLINE float fg_cos_reduced_f32(float hi, float lo)
{
    float z = hi * hi;
    float p = fg_horner3_f32(z,
        0.041666646f, -0.0013887315f, 2.4433008e-05f);
    float w = fmaf(z, -0.5f, 1.0f);
    float rest = fmaf(z, -0.5f, 1.0f - w);
    return w + fmaf(z * z, p, fmaf(-hi, lo, rest));
}

/* sin(r + q pi/2) where the low bits of `bits` are q. */
FG_INLINE float fg_sin_quadrant_f32(fg_reduced_f32 r, uint32_t bits)
{
    float s = r.hi + fg_sin_tail_f32(r.hi, r.lo);
    float c = fg_cos_reduced_f32(r.hi, r.lo);
    uint32_t odd = 0 - (bits & 1);
    uint32_t y = (fg_bits_f32(s) & ~odd) | (fg_bits_f32(c) & odd);
    return fg_from_bits_f32(y ^ ((bits & 2) << 30));
}

/* Below 0.9 ulp. */
FG_INLINE float fg_sin_f32(float x)
{
    fg_reduced_f32 r = fg_trig_reduce_f32(x);
    float y = fg_sin_quadrant_f32(r, r.bits);
    return fabsf(x) < 1e-5f ? x : y;
}

/* Below 0.9 ulp. */
FG_INLINE float fg_cos_f32(float x)
{
    fg_reduced_f32 r = fg_trig_reduce_f32(x);
    return fg_sin_quadrant_f32(r, r.bits + 1);
}

/* tan of the reduced argument (minimax, Remez, error 2**-29.4), or -1/tan.
 * Below 2 ulp. */
FG_INLINE float fg_tan_f32(float x)
{
    fg_reduced_f32 r = fg_trig_reduce_f32(x);
    float z = r.hi * r.hi;
    float p = fg_poly7_f32(z,
        0.33333352f, 0.13332608f, 0.05406577f, 0.021253752f, 0.010905607f,
        5.3080576e-06f, 0.0044160048f);
    float s = r.hi + fmaf(z * r.hi, p, fmaf(z, r.lo, r.lo));
    float y = (r.bits & 1) ? -1.0f / s : s;
    return fabsf(x) < 1e-5f ? x : y;
}

#else /* reduction in float needs FMA */

FG_INLINE float fg_sin_f32(float x) { return (float)fg_sin_f64(x); }
FG_INLINE float fg_cos_f32(float x) { return (float)fg_cos_f64(x); }
FG_INLINE float fg_tan_f32(float x) { return (float)fg_tan_f64(x); }

#endif

FG_INLINE int fg_trig_isslow_f32(float x) { return fabsf(x) > FG_TRIG_LIMIT_F32; }
FG_INLINE int fg_sin_isslow_f32(float x) { return fg_trig_isslow_f32(x); }
FG_INLINE int fg_cos_isslow_f32(float x) { return fg_trig_isslow_f32(x); }
FG_INLINE int fg_tan_isslow_f32(float x) { return fg_trig_isslow_f32(x); }
FG_INLINE float fg_sin_slow_f32(float x) { return (float)sin(x); }
FG_INLINE float fg_cos_slow_f32(float x) { return (float)cos(x); }
FG_INLINE float fg_tan_slow_f32(float x) { return (float)tan(x); }

/* As in float64; errors 2**-28.0 and 2**-31.  Below 1.1 ulp. */
FG_INLINE float fg_sinc_f32(float x)
{
    float a = fabsf(x);
    float t = a + FG_TWO23_F32;
    float r = a < FG_TWO23_F32 ? a - (t - FG_TWO23_F32) : 0.0f * a;
    float b = fabsf(r), u = 0.5f - b;
    float v = u * u, z = r * r;
    float small = z * b * fg_horner3_f32(z, -1.6449329f, 0.81162786f, -0.18761282f);
    float large = fg_mad_f32(v, fg_horner4_f32(v,
        -1.5707964f, 1.2919267f, -0.42495957f, 0.073643476f), 1.28412765e-08f);
    float head = b < 0.25f ? b : 0.318309873f;
    float tail = b < 0.25f ? small : large;
    float n = head + tail, nlo = (head - n) + tail;
    float inverse = 1.0f / a;
    float q = n * inverse;
    float y = fg_mad_f32(nlo - fg_mul_error_f32(q, a, n), inverse, q);
    uint32_t sign = (fg_bits_f32(t) << 31) ^ (fg_bits_f32(r) & 0x80000000u);
    return a < 1e-5f ? 1.0f : fg_from_bits_f32(fg_bits_f32(y) ^ sign) + 0.0f;
}

/* (arcsin(sqrt z) / sqrt z - 1) / z on [0, 1/4]: minimax (Remez), error
 * 2**-27.6. */
FG_INLINE float fg_arcsin_tail_f32(float z)
{
    return fg_poly5_f32(z,
        0.16666754f, 0.074952416f, 0.04547711f, 0.024147546f, 0.04221866f);
}

#define FG_PIO2_HI_F32 1.57079637f
#define FG_PIO2_LO_F32 -4.37113883e-08f

/* Below 1.2 ulp. */
FG_INLINE float fg_arcsin_f32(float x)
{
    float a = fabsf(x);
    int large = a > 0.5f;
    float z = large ? fg_mad_f32(a, -0.5f, 0.5f) : a * a;
    float s = large ? sqrtf(z) : a;
    float t = s * z * fg_arcsin_tail_f32(z);
    float u = FG_PIO2_HI_F32 - 2.0f * s;
    float v = ((FG_PIO2_HI_F32 - u) - 2.0f * s) + fg_mad_f32(t, -2.0f, FG_PIO2_LO_F32);
    return copysignf(large ? u + v : s + t, x);
}

/* Below 1.2 ulp. */
FG_INLINE float fg_arccos_f32(float x)
{
    float a = fabsf(x);
    int large = a > 0.5f;
    float z = large ? fg_mad_f32(a, -0.5f, 0.5f) : a * a;
    float s = large ? sqrtf(z) : x;
    float t = s * z * fg_arcsin_tail_f32(z);
    float middle = FG_PIO2_HI_F32 - (s + (t - FG_PIO2_LO_F32));
    float edge = 2.0f * (s + t);
    return large ? (x < 0.0f ? 2.0f * middle : edge) : middle;
}

/* (arctan(q) - q) / q**3 in z = q*q on [0, 1]: minimax (Remez), error 2**-28.6. */
FG_INLINE float fg_arctan_tail_f32(float q)
{
    float z = q * q;
    return z * q * fg_mad_f32(z, fg_poly8_f32(z,
        0.19998808f, -0.14266826f, 0.10965071f, -0.0843972f, 0.058560167f,
        -0.031763524f, 0.011222496f, -0.0018612182f), -0.33333308f);
}

/* Below 1.5 ulp. */
FG_INLINE float fg_arctan_f32(float x)
{
    float a = fabsf(x);
    int large = a > 1.0f;
    float q = large ? -1.0f / a : a;
    float t = fg_arctan_tail_f32(q);
    float y = q + (t + (large ? FG_PIO2_LO_F32 : 0.0f));
    return copysignf(y + (large ? FG_PIO2_HI_F32 : 0.0f), x);
}

/* Below 1.5 ulp. */
FG_INLINE float fg_arctan2_f32(float y, float x)
{
    float ax = fabsf(x), ay = fabsf(y);
    int steep = ay > ax;
    float n = steep ? ax : ay, d = steep ? ay : ax;
    float q0 = n == d ? 1.0f : n / d;
    float q1 = d == 0.0f ? 0.0f : q0;
    float q = (ax != ax) | (ay != ay) ? FG_NAN_F32 : q1;
    float t = fg_arctan_tail_f32(q);
    int left = copysignf(1.0f, x) < 0.0f;
    float base = steep ? FG_PIO2_HI_F32 : (left ? 2.0f * FG_PIO2_HI_F32 : 0.0f);
    float rest = steep ? FG_PIO2_LO_F32 : (left ? 2.0f * FG_PIO2_LO_F32 : 0.0f);
    float minus = steep == left ? 1.0f : -1.0f;
    float mq = minus * q;
    float angle = base + mq;
    angle += ((base - angle) + mq) + (minus * t + rest);
    return copysignf(angle, y);
}

/* ------------------------------------------------------------- roots */

FG_INLINE float fg_sqrt_f32(float x) { return sqrtf(x); }

/* As in float64, with 8 bits of root to begin with.  Below 0.6 ulp. */
FG_INLINE float fg_cbrt_f32(float x)
{
    float a = fabsf(x);
    int small = a < FG_MIN_F32;
    uint32_t u = fg_bits_f32(a * (small ? 16777216.0f : 1.0f));
    float e = (float)((int32_t)(u >> 23) - 127);
    float t = fg_mad_f32(e - 1.0f, 1.0f / 3.0f, FG_POW2_MAGIC_F32);
    float rem = fg_mad_f32(t - FG_POW2_MAGIC_F32, -3.0f, e);
    float scale = rem == 0.0f ? 1.0f : (rem == 1.0f ? 2.0f : 4.0f);
    float root = rem == 0.0f ? 1.0f : (rem == 1.0f ? 1.25992107f : 1.58740103f);
    float m = fg_from_bits_f32((u & 0x007fffffu) | 0x3f800000u);
    float y = m * scale;
    float r = fg_poly4_f32(m,
        1.5418869f, -0.8099602f, 0.317757f, -0.049936876f);
    float g = r * r * m * root;
    float h = fg_from_bits_f32(fg_bits_f32(g) & 0xffff0000u);
    float d = (y - h * h * h) / y;
    float p = fg_horner4_f32(d, 1.0f / 3.0f, 2.0f / 9.0f, 14.0f / 81.0f, 35.0f / 243.0f);
    h = fg_mad_f32(h * d, p, h);
    h *= fg_pow2_f32(t - (small ? 8.0f : 0.0f));
    return copysignf((a > 0.0f) & (a < FG_INF_F32) ? h : a, x);
}

/* In double, where the squares neither round nor overflow.  Below 0.6 ulp. */
FG_INLINE float fg_hypot_f32(float x, float y)
{
    double a = x, b = y;
    float r = (float)sqrt(fg_mad_f64(a, a, b * b));
    return (fabsf(x) == FG_INF_F32) | (fabsf(y) == FG_INF_F32) ? FG_INF_F32 : r;
}

/* ------------------------------------------------------------- power */

FG_INLINE float fg_power_slow_f32(float x, float y) { return powf(x, y); }

#if FG_HAVE_FMA

/* As in float64, but for log|x| 30 bits are enough: only 2s and k ln 2 are pairs
 * (minimax, Remez, error 2**-37.6).  Below 1.7 ulp. */
FG_INLINE fg_pair_f32 fg_log_double_f32(float a)
{
    fg_split_f32 p = fg_log_split_f32(a);
    float d = 2.0f + p.f, dlo = (2.0f - d) + p.f;
    float inverse = 1.0f / d;
    float s = p.f * inverse;
    float slo = fmaf(-s, dlo, fmaf(-s, d, p.f)) * inverse;
    float z = s * s;
    float t = s * z * fg_horner4_f32(z,
        0.6666666f, 0.40000334f, 0.28537273f, 0.23582862f);
    float h = 2.0f * s + t, l = (2.0f * s - h) + t;
    float tail = fmaf(z, slo, slo) * 2.0f;
    float k = p.k * FG_LN2_HI_F32;
    float kh = k + h;
    float kl = ((k - kh) + h) + fmaf(p.k, FG_LN2_LO_F32, l + tail);
    fg_pair_f32 out;
    out.hi = kh + kl;
    out.lo = (kh - out.hi) + kl;
    return out;
}

FG_INLINE int fg_power_isslow_f32(float x, float y)
{
    float a = fabsf(x);
    return !((a >= FG_MIN_F32) & (a < FG_INF_F32) & (fabsf(y) < 65536.0f));
}

FG_INLINE float fg_power_f32(float x, float y)
{
    fg_pair_f32 l = fg_log_double_f32(fabsf(x));
    float p = y * l.hi;
    float c0 = p > 100.0f ? 100.0f : p;
    float c = c0 < -120.0f ? -120.0f : c0;
    float plo = fmaf(y, l.lo, fmaf(y, l.hi, -p)); /* |plo| < 1, as |y| < 2**16 */
    float t = fmaf(c, FG_LOG2E_F32, FG_SCALE_MAGIC_F32);
    float k = t - FG_SCALE_MAGIC_F32;
    float r0 = fmaf(k, -FG_LN2_HI_F32, c);
    float v = fmaf(k, -FG_LN2_LO_F32, plo);
    float r = r0 + v;
    float e = 1.0f + fmaf(r * r, fg_exp_tail_f32(r), r);
    float magnitude = fg_scale_f32(e, t);
    float whole = y + FG_MAGIC_F32;
    uint32_t odd = fg_bits_f32(whole) << 31;
    float negative = (whole - FG_MAGIC_F32) == y
        ? fg_from_bits_f32(fg_bits_f32(magnitude) | odd) : FG_NAN_F32;
    return x < 0.0f ? negative : magnitude;
}

#else /* in double, where exp(y log|x|) needs no pairs */

FG_INLINE int fg_power_isslow_f32(float x, float y)
{
    float a = fabsf(x);
    return !((a > 0.0f) & (a < FG_INF_F32) & (fabsf(y) < 4194304.0f));
}

/* Minimax polynomials (Remez), errors 2**-37 of the logarithm and 2**-34 of the
 * exponential.  Below 0.6 ulp. */
FG_INLINE float fg_power_f32(float x, float y)
{
    fg_split_f64 a = fg_log_split_f64(fabs((double)x));
    double s = a.f / (2.0 + a.f);
    double z = s * s;
    double log = fg_mad_f64(a.k, 0.6931471805599453,
        fg_mad_f64(s * z, fg_poly4_f64(z,
        0.6666666564337855, 0.40000335705729073, 0.2853727335510669,
        0.23582861914061634), 2.0 * s));
    double p = y * log;
    double c = p > 90.0 ? 90.0 : p;
    double e = c < -105.0 ? -105.0 : c;
    double t = fg_mad_f64(e, FG_LOG2E_F64, FG_POW2_MAGIC_F64);
    double r = fg_mad_f64(t - FG_POW2_MAGIC_F64, -0.6931471805599453, e);
    double tail = fg_poly6_f64(r,
        0.5000000067788122, 0.16666665863781158, 0.04166629444765703,
        0.00833349787676973, 0.0013944700571875853, 0.00019790078948063013);
    float magnitude = (float)((1.0 + fg_mad_f64(r * r, tail, r)) * fg_pow2_f64(t));
    float whole = y + FG_MAGIC_F32;
    uint32_t odd = fg_bits_f32(whole) << 31;
    float negative = (whole - FG_MAGIC_F32) == y
        ? fg_from_bits_f32(fg_bits_f32(magnitude) | odd) : FG_NAN_F32;
    return x < 0.0f ? negative : magnitude;
}

#endif

/* --------------------------------------------------- rounding, division */

#if defined(__SSE4_1__) || !defined(__SSE2__)

FG_INLINE float fg_floor_f32(float x) { return floorf(x); }
FG_INLINE float fg_ceil_f32(float x) { return ceilf(x); }
FG_INLINE float fg_trunc_f32(float x) { return truncf(x); }
FG_INLINE float fg_round_f32(float x) { return rintf(x); }

#else /* SSE2 has no rounding instruction */

FG_INLINE float fg_round_f32(float x)
{
    float a = fabsf(x);
    float r = (a + FG_TWO23_F32) - FG_TWO23_F32;
    return copysignf(a < FG_TWO23_F32 ? r : a, x);
}

FG_INLINE float fg_floor_f32(float x)
{
    float r = fg_round_f32(x);
    float y = r - (r > x ? 1.0f : 0.0f);
    return r > x ? y : r;
}

FG_INLINE float fg_ceil_f32(float x)
{
    float r = fg_round_f32(x);
    float y = copysignf(r + 1.0f, x);
    return r < x ? y : r;
}

FG_INLINE float fg_trunc_f32(float x)
{
    return copysignf(fg_floor_f32(fabsf(x)), x);
}

#endif

/* Where x / y is too large (2**22), or an operand too extreme, for the exact
 * remainder below. */
FG_INLINE int fg_divmod_isslow_f32(float x, float y)
{
    float a = fabsf(x), b = fabsf(y);
    return !((a < FG_INF_F32) & (b >= FG_MIN_F32) & (b < FG_INF_F32) & (a < b * 4194304.0f));
}

/* trunc(x/y) and fmod(x, y), both exact: see fg_truncated_divmod_f64. */
typedef struct {
    float quotient, remainder;
} fg_divmod_f32;

FG_INLINE fg_divmod_f32 fg_truncated_divmod_f32(float x, float y)
{
    float a = fabsf(x), b = fabsf(y);
    float t = (a / b + FG_TWO23_F32) - FG_TWO23_F32;
#if FG_HAVE_FMA
    float r = fmaf(-t, b, a);
#else
    float r = (float)((double)a - (double)t * (double)b);
#endif
    fg_divmod_f32 out;
    out.quotient = r < 0.0f ? t - 1.0f : t;
    out.remainder = r < 0.0f ? r + b : r;
    return out;
}

FG_INLINE float fg_fmod_slow_f32(float x, float y) { return fmodf(x, y); }
FG_INLINE int fg_fmod_isslow_f32(float x, float y) { return fg_divmod_isslow_f32(x, y); }
/* Exact. */
FG_INLINE float fg_fmod_f32(float x, float y)
{
    return copysignf(fg_truncated_divmod_f32(x, y).remainder, x);
}

/* The remainder with the sign of y: NumPy's npy_divmod. */
FG_INLINE float fg_mod_sign_f32(float r, float y)
{
    int moved = (r != 0.0f) & ((r < 0.0f) != (y < 0.0f));
    float zero = copysignf(0.0f, y);
    return r == 0.0f ? zero : (moved ? r + y : r);
}

FG_INLINE float fg_mod_slow_f32(float x, float y)
{
    float r = fmodf(x, y);
    return y == 0.0f ? r : fg_mod_sign_f32(r, y);
}

FG_INLINE int fg_mod_isslow_f32(float x, float y) { return fg_divmod_isslow_f32(x, y); }
FG_INLINE float fg_mod_f32(float x, float y)
{
    return fg_mod_sign_f32(fg_fmod_f32(x, y), y);
}

FG_INLINE float fg_floor_divide_slow_f32(float x, float y)
{
    float r = fmodf(x, y);
    float d = (x - r) / y;
    float f;
    if (y == 0.0f)
        return x / y;
    if (r != 0.0f && (r < 0.0f) != (y < 0.0f))
        d -= 1.0f;
    if (d == 0.0f)
        return copysignf(0.0f, x / y);
    f = floorf(d);
    return d - f > 0.5f ? f + 1.0f : f;
}

FG_INLINE int fg_floor_divide_isslow_f32(float x, float y) { return fg_divmod_isslow_f32(x, y); }
FG_INLINE float fg_floor_divide_f32(float x, float y)
{
    fg_divmod_f32 d = fg_truncated_divmod_f32(x, y);
    uint32_t sign = (fg_bits_f32(x) ^ fg_bits_f32(y)) & 0x80000000u;
    float up = d.quotient + (d.remainder != 0.0f ? 1.0f : 0.0f);
    float magnitude = fg_from_bits_f32(sign | 0x3f800000u) < 0.0f ? up : d.quotient;
    return fg_from_bits_f32(fg_bits_f32(magnitude) | sign);
}

/* ---------------------------------------------------- error functions */

/* (erf(x)/x - 2/sqrt(pi)) / x**2 in z = x*x on [0, 1]: minimax (Remez), error
 * 2**-29.5 relative to erf. */
FG_INLINE float fg_erf_small_f32(float x)
{
    float z = x * x;
    float t = z * fg_poly6_f32(z,
        -0.3761263f, 0.112836175f, -0.026854916f, 0.005190162f, -0.0008024816f,
        7.898686e-05f);
    return fg_mad_f32(x, 0.128379166f + t, x);
}

/* erfc(a) for 0.4 <= a <= 10.5, as in float64; minimax (Remez), error 2**-30.4. */
FG_INLINE float fg_erfc_large_f32(float a)
{
    float a2 = a + a, d = 1.0f + a2;
    float dlo = a2 > 1.0f ? (a2 - d) + 1.0f : (1.0f - d) + a2;
    float b = a + 4.0f;
    float inverse = 1.0f / (b * d);
    float invb = inverse * d, invd = inverse * b;
    float q0 = (a - 4.0f) * invb;
    float q = fg_mad_f32(-invb, fg_mul_error_f32(q0, b, a - 4.0f), q0);
    float p = fg_poly12_f32(q,
        0.23299512f, -0.13962114f, 0.0153796f, 0.06809788f, -0.10103706f,
        0.09372165f, -0.0663606f, 0.03721243f, -0.016014779f, 0.005078381f,
        -0.0011060641f, -0.0006329922f);
    float g = 1.0f + p, glo = (1.0f - g) + p;
    float y = g * invd;
    float ylo = (glo - fg_mul_error_f32(y, d, g) - y * dlo) * invd;
    float s = a * a;
    float slo = fg_mul_error_f32(a, a, s);
    float t = fg_mad_f32(-s, FG_LOG2E_F32, FG_SCALE_MAGIC_F32);
    float k = t - FG_SCALE_MAGIC_F32;
    float r0 = fg_mad_f32(k, -FG_LN2_HI_F32, -s);
    float v = fg_mad_f32(k, -FG_LN2_LO_F32, -slo);
    float r = r0 + v, rlo = (r0 - r) + v;
    float w = fg_mad_f32(r * r, fg_exp_tail_f32(r), fg_mad_f32(r, rlo, rlo));
    float e0 = 1.0f + r, e0lo = (1.0f - e0) + r + w;
    float m = y * e0;
    float mlo = fg_mad_f32(y, e0lo, ylo * e0) + fg_mul_error_f32(y, e0, m);
    return fg_scale_f32(m + mlo, t);
}

/* yes ? a : b for finite a and b: see fg_choose_f64. */
FG_INLINE float fg_choose_f32(int yes, float a, float b)
{
    float w = yes ? 1.0f : 0.0f;
    return w * a + (1.0f - w) * b;
}

/* Below 1.3 ulp. */
FG_INLINE float fg_erf_f32(float x)
{
    float a = fabsf(x);
    float b = a > 4.5f ? 4.5f : a;
    float large = 1.0f - fg_erfc_large_f32(b);
    return copysignf(fg_choose_f32(b < 0.75f, fg_erf_small_f32(b), large), x);
}

/* Below 1.5 ulp. */
FG_INLINE float fg_erfc_f32(float x)
{
    float a = fabsf(x);
    float b = a > 10.5f ? 10.5f : a;
    float large = fg_erfc_large_f32(b);
    float base = x < 0.0f ? 2.0f : 0.0f, sign = x < 0.0f ? -1.0f : 1.0f;
    float c = copysignf(b, x);
    float middle = 1.0f - fg_erf_small_f32(c);
    return fg_choose_f32((x > -0.75f) & (x < 0.5f), middle, base + sign * large);
}

/* ---------------------------------------------------- gamma functions */

/* Those of float64, rounded; not vectorised. */
FG_INLINE float fg_gammaln_f32(float x) { return (float)fg_gammaln_f64(x); }
FG_INLINE float fg_digamma_f32(float x) { return (float)fg_digamma_f64(x); }

/* -------------------------------------------------------- slow twins */

#define FG_SLOW_sin_f32 1
#define FG_SLOW_cos_f32 1
#define FG_SLOW_tan_f32 1
#define FG_SLOW_power_f32 1
#define FG_SLOW_fmod_f32 1
#define FG_SLOW_mod_f32 1
#define FG_SLOW_floor_divide_f32 1

#endif
