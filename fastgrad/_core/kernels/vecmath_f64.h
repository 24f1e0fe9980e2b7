/* Elementary functions of float64 as straight-line C.
 *
 * Every fg_NAME_f64 is a pure function of its arguments, written so that GCC
 * vectorises `for (i...) out[i] = fg_NAME_f64(x[i])` at -O3 -fno-math-errno
 * -fno-trapping-math, for any instruction set, without intrinsics: both sides
 * of a choice are computed and one is selected, the exponent is read and
 * written as bits, and integers stay inside doubles (2**52 magic numbers),
 * because AVX2 and SSE2 convert no 64-bit integers.
 *
 * Special values are those of NumPy, silently: no errno, no flags promised.
 * The error bounds below cover the largest errors seen on 10**6 arguments a
 * function, with and without FMA, in ulp.
 *
 * This file knows nothing about arrays, strides, loops or derivatives.
 *
 * Slow twins.  Where FG_SLOW_NAME_f64 is defined (end of file) the fast
 * function is valid only where fg_NAME_isslow_f64 says 0; elsewhere
 * fg_NAME_slow_f64 is.  A loop runs the fast form over a block, combines the
 * predicates with |, and patches the few slow elements.
 *
 * Multiply-add is written out as fg_mad_f64, so that a result depends neither
 * on -ffp-contract nor on whether an element falls in the vector body or in
 * the tail of a loop.
 */
#ifndef FASTGRAD_VECMATH_F64_H
#define FASTGRAD_VECMATH_F64_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__FMA__) || defined(__FP_FAST_FMA)
#define FG_HAVE_FMA 1
#else
#define FG_HAVE_FMA 0
#endif

/* Inlined always: a call that GCC's size limits leave in a loop would keep the
 * loop scalar. */
#if defined(__GNUC__)
#define FG_INLINE static inline __attribute__((always_inline))
#else
#define FG_INLINE static inline
#endif

/* ------------------------------------------------------------------ bits */

#define FG_INF_F64 ((double)INFINITY)
#define FG_NAN_F64 ((double)NAN)
#define FG_MIN_F64 2.2250738585072014e-308 /* the smallest normal number */

/* Adding and subtracting 1.5 * 2**52 rounds |x| < 2**51 to an integer, half
 * to even, and leaves that integer in the low bits of the sum. */
#define FG_MAGIC_F64 6755399441055744.0
#define FG_TWO52_F64 4503599627370496.0

FG_INLINE uint64_t fg_bits_f64(double x)
{
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

FG_INLINE double fg_from_bits_f64(uint64_t u)
{
    double x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* a*b + c: one rounding where the processor has FMA, two elsewhere. */
FG_INLINE double fg_mad_f64(double a, double b, double c)
{
#if FG_HAVE_FMA
    return fma(a, b, c);
#else
    return a * b + c;
#endif
}

/* x with the low 27 bits of its fraction cleared: products of two are exact. */
FG_INLINE double fg_head_f64(double x)
{
    return fg_from_bits_f64(fg_bits_f64(x) & 0xfffffffff8000000u);
}

/* a*b - p exactly, for p = fl(a*b); without FMA by splitting, so that |a| and
 * |b| have to stay clear of overflow and underflow. */
FG_INLINE double fg_mul_error_f64(double a, double b, double p)
{
#if FG_HAVE_FMA
    return fma(a, b, -p);
#else
    double ah = fg_head_f64(a), al = a - ah;
    double bh = fg_head_f64(b), bl = b - bh;
    return ((ah * bh - p) + ah * bl + al * bh) + al * bl;
#endif
}

/* An unevaluated sum hi + lo, |lo| small against |hi|. */
typedef struct {
    double hi, lo;
} fg_pair_f64;

/* ----------------------------------------------------------- polynomials */

/* Horner's rule in x, lowest coefficient first. */
FG_INLINE double fg_horner2_f64(double x, double c0, double c1)
{
    return fg_mad_f64(c1, x, c0);
}

FG_INLINE double fg_horner3_f64(double x, double c0, double c1, double c2)
{
    return fg_mad_f64(fg_horner2_f64(x, c1, c2), x, c0);
}

FG_INLINE double fg_horner4_f64(double x, double c0, double c1, double c2, double c3)
{
    return fg_mad_f64(fg_horner3_f64(x, c1, c2, c3), x, c0);
}

FG_INLINE double fg_horner5_f64(double x, double c0, double c1, double c2, double c3,
    double c4)
{
    return fg_mad_f64(fg_horner4_f64(x, c1, c2, c3, c4), x, c0);
}

FG_INLINE double fg_horner6_f64(double x, double c0, double c1, double c2, double c3,
    double c4, double c5)
{
    return fg_mad_f64(fg_horner5_f64(x, c1, c2, c3, c4, c5), x, c0);
}

FG_INLINE double fg_horner7_f64(double x, double c0, double c1, double c2, double c3,
    double c4, double c5, double c6)
{
    return fg_mad_f64(fg_horner6_f64(x, c1, c2, c3, c4, c5, c6), x, c0);
}

/* fg_polyN_f64(x, c0 ... ): N coefficients by Estrin's scheme, whose short
 * chains of dependent operations suit a wide processor. */
FG_INLINE double fg_poly4_f64(double x, double c0, double c1, double c2, double c3)
{
    double x2 = x * x;
    double p0 = fg_mad_f64(fg_mad_f64(c3, x, c2), x2, fg_mad_f64(c1, x, c0));
    return p0;
}

FG_INLINE double fg_poly5_f64(double x, double c0, double c1, double c2, double c3,
    double c4)
{
    double x2 = x * x;
    double x4 = x2 * x2;
    double p0 = fg_mad_f64(fg_mad_f64(c3, x, c2), x2, fg_mad_f64(c1, x, c0));
    return fg_mad_f64(c4, x4, p0);
}

FG_INLINE double fg_poly6_f64(double x, double c0, double c1, double c2, double c3,
    double c4, double c5)
{
    double x2 = x * x;
    double x4 = x2 * x2;
    double p0 = fg_mad_f64(fg_mad_f64(c3, x, c2), x2, fg_mad_f64(c1, x, c0));
    double p4 = fg_mad_f64(c5, x, c4);
    return fg_mad_f64(p4, x4, p0);
}

FG_INLINE double fg_poly7_f64(double x, double c0, double c1, double c2, double c3,
    double c4, double c5, double c6)
{
    double x2 = x * x;
    double x4 = x2 * x2;
    double p0 = fg_mad_f64(fg_mad_f64(c3, x, c2), x2, fg_mad_f64(c1, x, c0));
    double p4 = fg_mad_f64(c6, x2, fg_mad_f64(c5, x, c4));
    return fg_mad_f64(p4, x4, p0);
}

FG_INLINE double fg_poly9_f64(double x, double c0, double c1, double c2, double c3,
    double c4, double c5, double c6, double c7, double c8)
{
    double x2 = x * x;
    double x4 = x2 * x2;
    double x8 = x4 * x4;
    double p0 = fg_mad_f64(fg_mad_f64(c3, x, c2), x2, fg_mad_f64(c1, x, c0));
    double p4 = fg_mad_f64(fg_mad_f64(c7, x, c6), x2, fg_mad_f64(c5, x, c4));
    double q4_0 = fg_mad_f64(p4, x4, p0);
    return fg_mad_f64(c8, x8, q4_0);
}

FG_INLINE double fg_poly10_f64(double x, double c0, double c1, double c2, double c3,
    double c4, double c5, double c6, double c7, double c8, double c9)
{
    double x2 = x * x;
    double x4 = x2 * x2;
    double x8 = x4 * x4;
    double p0 = fg_mad_f64(fg_mad_f64(c3, x, c2), x2, fg_mad_f64(c1, x, c0));
    double p4 = fg_mad_f64(fg_mad_f64(c7, x, c6), x2, fg_mad_f64(c5, x, c4));
    double p8 = fg_mad_f64(c9, x, c8);
    double q4_0 = fg_mad_f64(p4, x4, p0);
    return fg_mad_f64(p8, x8, q4_0);
}

FG_INLINE double fg_poly11_f64(double x, double c0, double c1, double c2, double c3,
    double c4, double c5, double c6, double c7, double c8, double c9, double c10)
{
    double x2 = x * x;
    double x4 = x2 * x2;
    double x8 = x4 * x4;
    double p0 = fg_mad_f64(fg_mad_f64(c3, x, c2), x2, fg_mad_f64(c1, x, c0));
    double p4 = fg_mad_f64(fg_mad_f64(c7, x, c6), x2, fg_mad_f64(c5, x, c4));
    double p8 = fg_mad_f64(c10, x2, fg_mad_f64(c9, x, c8));
    double q4_0 = fg_mad_f64(p4, x4, p0);
    return fg_mad_f64(p8, x8, q4_0);
}

FG_INLINE double fg_poly12_f64(double x, double c0, double c1, double c2, double c3,
    double c4, double c5, double c6, double c7, double c8, double c9, double c10, double
    c11)
{
    double x2 = x * x;
    double x4 = x2 * x2;
    double x8 = x4 * x4;
    double p0 = fg_mad_f64(fg_mad_f64(c3, x, c2), x2, fg_mad_f64(c1, x, c0));
    double p4 = fg_mad_f64(fg_mad_f64(c7, x, c6), x2, fg_mad_f64(c5, x, c4));
    double p8 = fg_mad_f64(fg_mad_f64(c11, x, c10), x2, fg_mad_f64(c9, x, c8));
    double q4_0 = fg_mad_f64(p4, x4, p0);
    return fg_mad_f64(p8, x8, q4_0);
}

FG_INLINE double fg_poly13_f64(double x, double c0, double c1, double c2, double c3,
    double c4, double c5, double c6, double c7, double c8, double c9, double c10, double
    c11, double c12)
{
    double x2 = x * x;
    double x4 = x2 * x2;
    double x8 = x4 * x4;
    double p0 = fg_mad_f64(fg_mad_f64(c3, x, c2), x2, fg_mad_f64(c1, x, c0));
    double p4 = fg_mad_f64(fg_mad_f64(c7, x, c6), x2, fg_mad_f64(c5, x, c4));
    double p8 = fg_mad_f64(fg_mad_f64(c11, x, c10), x2, fg_mad_f64(c9, x, c8));
    double q4_0 = fg_mad_f64(p4, x4, p0);
    double q4_8 = fg_mad_f64(c12, x4, p8);
    return fg_mad_f64(q4_8, x8, q4_0);
}

FG_INLINE double fg_poly15_f64(double x, double c0, double c1, double c2, double c3,
    double c4, double c5, double c6, double c7, double c8, double c9, double c10, double
    c11, double c12, double c13, double c14)
{
    double x2 = x * x;
    double x4 = x2 * x2;
    double x8 = x4 * x4;
    double p0 = fg_mad_f64(fg_mad_f64(c3, x, c2), x2, fg_mad_f64(c1, x, c0));
    double p4 = fg_mad_f64(fg_mad_f64(c7, x, c6), x2, fg_mad_f64(c5, x, c4));
    double p8 = fg_mad_f64(fg_mad_f64(c11, x, c10), x2, fg_mad_f64(c9, x, c8));
    double p12 = fg_mad_f64(c14, x2, fg_mad_f64(c13, x, c12));
    double q4_0 = fg_mad_f64(p4, x4, p0);
    double q4_8 = fg_mad_f64(p12, x4, p8);
    return fg_mad_f64(q4_8, x8, q4_0);
}

FG_INLINE double fg_poly19_f64(double x, double c0, double c1, double c2, double c3,
    double c4, double c5, double c6, double c7, double c8, double c9, double c10, double
    c11, double c12, double c13, double c14, double c15, double c16, double c17, double
    c18)
{
    double x2 = x * x;
    double x4 = x2 * x2;
    double x8 = x4 * x4;
    double x16 = x8 * x8;
    double p0 = fg_mad_f64(fg_mad_f64(c3, x, c2), x2, fg_mad_f64(c1, x, c0));
    double p4 = fg_mad_f64(fg_mad_f64(c7, x, c6), x2, fg_mad_f64(c5, x, c4));
    double p8 = fg_mad_f64(fg_mad_f64(c11, x, c10), x2, fg_mad_f64(c9, x, c8));
    double p12 = fg_mad_f64(fg_mad_f64(c15, x, c14), x2, fg_mad_f64(c13, x, c12));
    double p16 = fg_mad_f64(c18, x2, fg_mad_f64(c17, x, c16));
    double q4_0 = fg_mad_f64(p4, x4, p0);
    double q4_8 = fg_mad_f64(p12, x4, p8);
    double q8_0 = fg_mad_f64(q4_8, x8, q4_0);
    return fg_mad_f64(p16, x16, q8_0);
}

FG_INLINE double fg_poly22_f64(double x, double c0, double c1, double c2, double c3,
    double c4, double c5, double c6, double c7, double c8, double c9, double c10, double
    c11, double c12, double c13, double c14, double c15, double c16, double c17, double
    c18, double c19, double c20, double c21)
{
    double x2 = x * x;
    double x4 = x2 * x2;
    double x8 = x4 * x4;
    double x16 = x8 * x8;
    double p0 = fg_mad_f64(fg_mad_f64(c3, x, c2), x2, fg_mad_f64(c1, x, c0));
    double p4 = fg_mad_f64(fg_mad_f64(c7, x, c6), x2, fg_mad_f64(c5, x, c4));
    double p8 = fg_mad_f64(fg_mad_f64(c11, x, c10), x2, fg_mad_f64(c9, x, c8));
    double p12 = fg_mad_f64(fg_mad_f64(c15, x, c14), x2, fg_mad_f64(c13, x, c12));
    double p16 = fg_mad_f64(fg_mad_f64(c19, x, c18), x2, fg_mad_f64(c17, x, c16));
    double p20 = fg_mad_f64(c21, x, c20);
    double q4_0 = fg_mad_f64(p4, x4, p0);
    double q4_8 = fg_mad_f64(p12, x4, p8);
    double q4_16 = fg_mad_f64(p20, x4, p16);
    double q8_0 = fg_mad_f64(q4_8, x8, q4_0);
    return fg_mad_f64(q4_16, x16, q8_0);
}

FG_INLINE double fg_poly23_f64(double x, double c0, double c1, double c2, double c3,
    double c4, double c5, double c6, double c7, double c8, double c9, double c10, double
    c11, double c12, double c13, double c14, double c15, double c16, double c17, double
    c18, double c19, double c20, double c21, double c22)
{
    double x2 = x * x;
    double x4 = x2 * x2;
    double x8 = x4 * x4;
    double x16 = x8 * x8;
    double p0 = fg_mad_f64(fg_mad_f64(c3, x, c2), x2, fg_mad_f64(c1, x, c0));
    double p4 = fg_mad_f64(fg_mad_f64(c7, x, c6), x2, fg_mad_f64(c5, x, c4));
    double p8 = fg_mad_f64(fg_mad_f64(c11, x, c10), x2, fg_mad_f64(c9, x, c8));
    double p12 = fg_mad_f64(fg_mad_f64(c15, x, c14), x2, fg_mad_f64(c13, x, c12));
    double p16 = fg_mad_f64(fg_mad_f64(c19, x, c18), x2, fg_mad_f64(c17, x, c16));
    double p20 = fg_mad_f64(c22, x2, fg_mad_f64(c21, x, c20));
    double q4_0 = fg_mad_f64(p4, x4, p0);
    double q4_8 = fg_mad_f64(p12, x4, p8);
    double q4_16 = fg_mad_f64(p20, x4, p16);
    double q8_0 = fg_mad_f64(q4_8, x8, q4_0);
    return fg_mad_f64(q4_16, x16, q8_0);
}

/* ------------------------------------------------------- exponentials */

/* 2**k y for -1075 <= k <= 1026, where t = k + FG_MAGIC_F64 + 2046: the power
 * is split into two factors, so that neither overflows before y does and a
 * subnormal result is rounded once. */
#define FG_SCALE_MAGIC_F64 (FG_MAGIC_F64 + 2046.0)
FG_INLINE double fg_scale_f64(double y, double t)
{
    uint64_t m = fg_bits_f64(t) & 0xfff;
    uint64_t h = m >> 1;
    return y * fg_from_bits_f64(h << 52) * fg_from_bits_f64((m - h) << 52);
}

/* 2**k for -1022 <= k <= 1023, where t = k + FG_MAGIC_F64 + 1023. */
#define FG_POW2_MAGIC_F64 (FG_MAGIC_F64 + 1023.0)
FG_INLINE double fg_pow2_f64(double t)
{
    return fg_from_bits_f64(fg_bits_f64(t) << 52);
}

#define FG_LOG2E_F64 1.4426950408889634
#define FG_LN2_HI_F64 0.6931471803691238     /* 32 bits: k * hi is exact */
#define FG_LN2_LO_F64 1.9082149292705877e-10

/* (e**r - 1 - r) / r**2 on |r| <= ln(2)/2: minimax (Remez), error 2**-57.9
 * relative to e**r. */
FG_INLINE double fg_exp_tail_f64(double r)
{
    return fg_poly10_f64(r,
        0.5000000000000011, 0.1666666666666641, 0.04166666666652973,
        0.008333333333494992, 0.001388888894376008, 0.00019841269505747763,
        2.4801492949351272e-05, 2.7557586823265932e-06, 2.763030638328166e-07,
        2.500001347505822e-08);
}

/* e**x = 2**k (1 + r + r**2 tail(r)), x = k ln 2 + r.  Below 1.1 ulp. */
FG_INLINE double fg_exp_f64(double x)
{
    double y = x > 710.0 ? 710.0 : x;
    double t = fg_mad_f64(y, FG_LOG2E_F64, FG_SCALE_MAGIC_F64);
    double k = t - FG_SCALE_MAGIC_F64;
    double r = fg_mad_f64(k, -FG_LN2_LO_F64, fg_mad_f64(k, -FG_LN2_HI_F64, y));
    double p = fg_mad_f64(r * r, fg_exp_tail_f64(r), r);
    double result = fg_scale_f64(1.0 + p, t);
    return x < -746.0 ? 0.0 : result; /* a lower bound of y would cost AVX-512 three instructions more */
}

/* 2**x = 2**k 2**r, |r| <= 1/2; the tail (2**r - 1 - r ln 2) / r**2 is minimax
 * (Remez), error 2**-57.9.  Below 1.2 ulp. */
FG_INLINE double fg_exp2_tail_f64(double r)
{
    return fg_poly10_f64(r,
        0.24022650695910122, 0.05550410866482073, 0.009618129107596842,
        0.001333355814668731, 0.00015403530454272783, 1.525273354597645e-05,
        1.32154364948043e-06, 1.0178184884734661e-07, 7.073600668420385e-09,
        4.4362920460038524e-10);
}

FG_INLINE double fg_exp2_f64(double x)
{
    double c = x > 1025.0 ? 1025.0 : x;
    double y = c < -1076.0 ? -1076.0 : c;
    double t = y + FG_SCALE_MAGIC_F64;
    double r = y - (t - FG_SCALE_MAGIC_F64);
    double p = fg_mad_f64(r * r, fg_exp2_tail_f64(r), r * 0.6931471805599453);
    return fg_scale_f64(1.0 + p, t);
}

/* (e**r - 1 - r) / r**2, error 2**-61.7 relative to r. */
FG_INLINE double fg_expm1_tail_f64(double r)
{
    return fg_poly11_f64(r,
        0.5, 0.16666666666666677, 0.0416666666666667, 0.008333333333321577,
        0.0013888888888866774, 0.0001984126988626744, 2.48015873606862e-05,
        2.7557244060711973e-06, 2.755724264561255e-07, 2.5109090827763714e-08,
        2.092447921058247e-09);
}

/* (e**x - 1) 2**shift as hi + lo for -745 <= x <= 710 and shift 0 or -1 (-1
 * keeps 2**1024 in range).  With s = 2**k: s*r + (s - 1) and its rounding
 * error, plus s times the tail. */
FG_INLINE fg_pair_f64 fg_expm1_pair_f64(double x, double shift)
{
    double t = fg_mad_f64(x, FG_LOG2E_F64, FG_POW2_MAGIC_F64);
    double k = t - FG_POW2_MAGIC_F64;
    double r0 = fg_mad_f64(k, -FG_LN2_HI_F64, x);
    double r = fg_mad_f64(k, -FG_LN2_LO_F64, r0);
    double rlo = fg_mad_f64(k, -FG_LN2_LO_F64, r0 - r);
    double tail = fg_mad_f64(r * r, fg_expm1_tail_f64(r), rlo);
    double s = fg_pow2_f64(t + shift);
    double c = s - (shift == 0.0 ? 1.0 : 0.5);
    double sr = s * r;
    fg_pair_f64 out;
    out.hi = c + sr;
    out.lo = fg_mad_f64(s, tail, (c - out.hi) + sr);
    return out;
}

/* e**x - 1.  Below 1.3 ulp. */
FG_INLINE double fg_expm1_f64(double x)
{
    double c = x > 710.0 ? 710.0 : x;
    double y = c < -50.0 ? -50.0 : c;
    fg_pair_f64 e = fg_expm1_pair_f64(y, -1.0);
    double result = (e.hi + e.lo) * 2.0;
    return fabs(x) < 1e-17 ? x : result;
}

/* num / den, num = n.hi + n.lo, den = d.hi + d.lo in [1, 2]: one division and a
 * correction, for which 1.457 - d/2 is a good enough 1/d. */
FG_INLINE double fg_divide_12_f64(fg_pair_f64 n, fg_pair_f64 d)
{
    double q = n.hi / d.hi;
    double e = fg_mad_f64(-q, d.lo, n.lo);
#if FG_HAVE_FMA
    e += fma(-q, d.hi, n.hi);
#endif
    return fg_mad_f64(e, fg_mad_f64(d.hi, -0.5, 1.457), q);
}

/* tanh x = -m / (2 + m), m = expm1(-2 |x|).  Below 2 ulp. */
FG_INLINE double fg_tanh_f64(double x)
{
    double a = fabs(x);
    double b = a > 22.0 ? 22.0 : a;
    fg_pair_f64 e = fg_expm1_pair_f64(-2.0 * b, 0.0);
    double m = e.hi + e.lo;
    double d = 2.0 + m, dlo = (2.0 - d) + m;
    double q = m / d;
    /* 1.457 - d/2 is near enough to 1/d for the correction */
    return copysign(fg_mad_f64(q, dlo * fg_mad_f64(d, 0.5, -1.457), q), x);
}

/* The logistic function 1 / (1 + e**-x), as e**x / (1 + e**x) for x < 0.
 * Below 1.8 ulp. */
FG_INLINE double fg_sigmoid_f64(double x)
{
    double z = fg_exp_f64(-fabs(x));
    fg_pair_f64 n, d;
    n.hi = x < 0.0 ? z : 1.0;
    n.lo = 0.0;
    d.hi = 1.0 + z;
    d.lo = (1.0 - d.hi) + z;
    return fg_divide_12_f64(n, d);
}

/* (cosh a, sinh a) / 4 for 0 <= a <= 711, each as hi + lo.  a = k ln 2 + r and
 * the addition theorems, with cosh and sinh of k ln 2 nearly exact and those
 * of r by minimax polynomials (Remez, errors 2**-57.0 and 2**-61.7). */
typedef struct {
    fg_pair_f64 cosh, sinh;
} fg_hyperbolic_f64;

FG_INLINE fg_hyperbolic_f64 fg_cosh_sinh_f64(double a)
{
    double t = fg_mad_f64(a, FG_LOG2E_F64, FG_POW2_MAGIC_F64);
    double k = t - FG_POW2_MAGIC_F64;
    double r0 = fg_mad_f64(k, -FG_LN2_HI_F64, a);
    double r = fg_mad_f64(k, -FG_LN2_LO_F64, r0);
    double rlo = fg_mad_f64(k, -FG_LN2_LO_F64, r0 - r);
    double z = r * r;
    double slo = fg_mad_f64(z * r, fg_poly5_f64(z,
        0.16666666666666677, 0.008333333333321577, 0.00019841269886268425,
        2.755724405967349e-06, 2.510909119860195e-08), rlo);
    double clo = fg_mad_f64(z, fg_mad_f64(z, fg_poly4_f64(z,
        0.04166666666661867, 0.0013888888921609695, 2.4801514518740037e-05,
        2.7623070436058954e-07), 0.5), r * rlo);
    double up = fg_pow2_f64(t - 3.0);
    double down = fg_pow2_f64((FG_POW2_MAGIC_F64 - 3.0) - (k > 60.0 ? 60.0 : k));
    double s = up - down, c = up + down;
    double cr = c * r, sr = s * r;
    fg_hyperbolic_f64 out;
    out.sinh.hi = s + cr;
    out.sinh.lo = ((s - out.sinh.hi) + cr) + fg_mad_f64(s, clo, c * slo);
    out.cosh.hi = c + sr;
    out.cosh.lo = ((c - out.cosh.hi) + sr) + fg_mad_f64(c, clo, s * slo);
    return out;
}

/* Below 1.3 ulp. */
FG_INLINE double fg_sinh_f64(double x)
{
    double a = fabs(x);
    fg_pair_f64 s = fg_cosh_sinh_f64(a > 711.0 ? 711.0 : a).sinh;
    double result = copysign((s.hi + s.lo) * 4.0, x);
    return a < 1e-17 ? x : result;
}

/* Below 1.1 ulp. */
FG_INLINE double fg_cosh_f64(double x)
{
    double a = fabs(x);
    fg_pair_f64 c = fg_cosh_sinh_f64(a > 711.0 ? 711.0 : a).cosh;
    return (c.hi + c.lo) * 4.0;
}

/* --------------------------------------------------------- logarithms */

/* x = 2**k (1 + f), 1 + f in [sqrt(1/2), sqrt(2)), for normal x > 0. */
typedef struct {
    double k, f;
} fg_split_f64;

FG_INLINE fg_split_f64 fg_log_split_f64(double x)
{
    uint64_t u = fg_bits_f64(x) + (0x3ff0000000000000u - 0x3fe6a09e667f3bcdu);
    fg_split_f64 out;
    out.k = fg_from_bits_f64((u >> 52) | 0x4330000000000000u) - (FG_TWO52_F64 + 1023.0);
    out.f = fg_from_bits_f64((u & 0x000fffffffffffffu) + 0x3fe6a09e667f3bcdu) - 1.0;
    return out;
}

/* The same for any finite x > 0. */
FG_INLINE fg_split_f64 fg_log_split_any_f64(double x)
{
    int small = x < FG_MIN_F64;
    fg_split_f64 out = fg_log_split_f64(x * (small ? 18014398509481984.0 : 1.0));
    out.k -= small ? 54.0 : 0.0;
    return out;
}

/* f - log(1+f).  With s = f/(2+f) the logarithm is 2s + s R(s*s) and 2s is
 * f - s f; R minimax (Remez), error 2**-59.5 relative to the log. */
FG_INLINE double fg_log_deficit_f64(double f)
{
    double s = f / (2.0 + f);
    double z = s * s;
    double p = fg_poly7_f64(z,
        0.6666666666666735, 0.39999999999412883, 0.28571428742826344,
        0.22222198524439335, 0.18183567041218854, 0.15313976675879284,
        0.147967310588865);
    return s * fg_mad_f64(-z, p, f);
}

/* What a logarithm is outside (0, inf). */
FG_INLINE double fg_log_special_f64(double x, double result)
{
    double below = x == 0.0 ? -FG_INF_F64 : FG_NAN_F64;
    double above = x < FG_INF_F64 ? result : x;
    return x > 0.0 ? above : below;
}

/* Below 0.9 ulp. */
FG_INLINE double fg_log_f64(double x)
{
    fg_split_f64 a = fg_log_split_any_f64(x);
    double d = fg_mad_f64(a.k, -FG_LN2_LO_F64, fg_log_deficit_f64(a.f));
    return fg_log_special_f64(x, fg_mad_f64(a.k, FG_LN2_HI_F64, a.f - d));
}

/* k + log(1+f) / ln 2, with the product of f as a pair.  Below 1.1 ulp. */
FG_INLINE double fg_log2_f64(double x)
{
    fg_split_f64 a = fg_log_split_any_f64(x);
    double p = a.f * FG_LOG2E_F64;
    double error = fg_mul_error_f64(a.f, FG_LOG2E_F64, p);
    double plo = fg_mad_f64(a.f, 2.0355273740931033e-17, error);
    double q = fg_mad_f64(fg_log_deficit_f64(a.f), -FG_LOG2E_F64, plo);
    double w = a.k + p;
    return fg_log_special_f64(x, w + (((a.k - w) + p) + q));
}

/* As log2, with log10(2) in two parts for the exponent.  Below 1.1 ulp. */
FG_INLINE double fg_log10_f64(double x)
{
    fg_split_f64 a = fg_log_split_any_f64(x);
    double p = a.f * 0.4342944819032518;
    double error = fg_mul_error_f64(a.f, 0.4342944819032518, p);
    double plo = fg_mad_f64(a.f, 1.098319650216765e-17, error);
    double q = fg_mad_f64(fg_log_deficit_f64(a.f), -0.4342944819032518, plo);
    double k = a.k * 0.30102999566361177; /* 40 bits: exact */
    double w = k + p;
    q = fg_mad_f64(a.k, 3.694239077158931e-13, q);
    return fg_log_special_f64(x, w + (((k - w) + p) + q));
}

/* 2**k0 (1 + x), x = hi + lo, as a logarithm: k0 ln 2 + log(1 + hi + lo), for
 * finite hi > -1.  1 + hi = u with rounding error c, which enters to first
 * order, as c/u. */
FG_INLINE double fg_log1p_pair_f64(double hi, double lo, double k0)
{
    double u = 1.0 + hi;
    double b = u - 1.0;
    double c = ((1.0 - (u - b)) + (hi - b)) + lo;
    fg_split_f64 a = fg_log_split_f64(u);
    double down = fg_pow2_f64(FG_POW2_MAGIC_F64 - (a.k > 1000.0 ? 1000.0 : a.k));
    double g = c * down;
    double k = a.k + k0;
    double e = g * fg_mad_f64(a.f, fg_mad_f64(a.f, 0.85, -1.0), 1.0); /* g / (1 + f) */
    double d = fg_log_deficit_f64(a.f) - fg_mad_f64(k, FG_LN2_LO_F64, e);
    return fg_mad_f64(k, FG_LN2_HI_F64, a.f - d);
}

/* Below 0.9 ulp. */
FG_INLINE double fg_log1p_f64(double x)
{
    double y = fg_log1p_pair_f64(x, 0.0, 0.0);
    double below = x == -1.0 ? -FG_INF_F64 : FG_NAN_F64;
    double result = fabs(x) < 1e-17 ? x : y;
    double above = x < FG_INF_F64 ? result : x;
    return x > -1.0 ? above : below;
}

/* log(1 + e**x) = max(x, 0) + log1p(e**-|x|).  Below 1.7 ulp. */
FG_INLINE double fg_softplus_f64(double x)
{
    double z = fg_exp_f64(-fabs(x));
    double y = fg_log1p_pair_f64(z, 0.0, 0.0);
    return (x < 0.0 ? 0.0 : x) + (z < 1e-17 ? z : y);
}

/* log(e**x + e**y) = max + log1p(e**-|x-y|).  Below 1.5 ulp away from its
 * zeros; near them the absolute error is below 2e-16. */
FG_INLINE double fg_logaddexp_f64(double x, double y)
{
    double m = x > y ? x : y;
    double d = x == y ? 0.0 : fabs(x - y);
    double z = fg_exp_f64(-d);
    double s = m + fg_log1p_pair_f64(z, 0.0, 0.0);
    return d == d ? s : x + y;
}

/* log2(2**x + 2**y), the same way in base 2. */
FG_INLINE double fg_logaddexp2_f64(double x, double y)
{
    double m = x > y ? x : y;
    double d = x == y ? 0.0 : fabs(x - y);
    double z = fg_exp2_f64(-d);
    double s0 = fg_mad_f64(fg_log1p_pair_f64(z, 0.0, 0.0), FG_LOG2E_F64, m);
    double s = d == 0.0 ? m + 1.0 : s0;
    return d == d ? s : x + y;
}

/* log1p of a + a*a / (1 + sqrt(1 + a*a)); from 2**60 on log(a) + ln 2.
 * Below 1.3 ulp. */
FG_INLINE double fg_arcsinh_f64(double x)
{
    double a = fabs(x);
    double t = a * a / (1.0 + sqrt(fg_mad_f64(a, a, 1.0)));
    double w = a + t;
    int large = a > 1152921504606846976.0;
    double hi = large ? a : w;
    double lo = large ? 0.0 : (a - w) + t;
    double y = fg_log1p_pair_f64(hi, lo, large ? 1.0 : 0.0);
    double result = a < 1e-9 ? a : y;
    return copysign(a < FG_INF_F64 ? result : a, x);
}

/* log1p of t + sqrt(t (t + 2)), t = x - 1.  Below 1.8 ulp. */
FG_INLINE double fg_arccosh_f64(double x)
{
    double t = x - 1.0;
    double v = fg_mad_f64(t, t, 2.0 * t);
    double s = sqrt(v);
    double w = t + s;
    int large = x > 1152921504606846976.0;
    double hi = large ? x : w;
    double lo = large ? 0.0 : (s - w) + t;
    double y = fg_log1p_pair_f64(hi, lo, large ? 1.0 : 0.0);
    double outside = x < 1.0 ? FG_NAN_F64 : x;
    return (x >= 1.0) & (x < FG_INF_F64) ? y : outside;
}

/* (1+a) / (1-a) = 2**k m with m near 1: k from the difference of the two bit
 * patterns, a logarithm to within 0.09, rounded up from 0.75; log m =
 * 2s + s z P(z), s = (m-1) / (m+1), z = s*s <= 0.08, P minimax (Remez), error
 * 2**-58.3.  Below 1.4 ulp. */
FG_INLINE double fg_arctanh_f64(double x)
{
    double a = fabs(x);
    double u = 1.0 + a, v = 1.0 - a;
    uint64_t k = (fg_bits_f64(u) - fg_bits_f64(v) + 0x0004000000000000u) >> 52;
    double scale = fg_from_bits_f64((k + 1023) << 52);
    double kd = fg_from_bits_f64(k | 0x4330000000000000u) - FG_TWO52_F64;
    double w = scale * v;
    double ulo = (1.0 - u) + a, vlo = (1.0 - v) - a;
    double s = ((u - w) + fg_mad_f64(-scale, vlo, ulo)) / (u + w);
    double z = s * s;
    double series = fg_poly9_f64(z,
        0.6666666666666707, 0.3999999999978034, 0.2857142861054501,
        0.22222218866181567, 0.18181979412017465, 0.15379975879434568,
        0.13414794466075075, 0.10916183595900641, 0.15236966363295723);
    double p = fg_mad_f64(s * z, 0.5 * series, kd * (0.5 * FG_LN2_LO_F64));
    double y = fg_mad_f64(kd, 0.5 * FG_LN2_HI_F64, s + p);
    double outside = a == 1.0 ? FG_INF_F64 : FG_NAN_F64;
    return copysign(a < 1.0 ? y : outside, x);
}

/* ------------------------------------------------------ trigonometry */

/* x = k pi/2 + hi + lo, |hi| <= pi/4, for |x| <= FG_TRIG_LIMIT_F64; the low bits
 * of `bits` are those of k.  pi/2 in parts of 53, 33 and 53 bits with FMA,
 * of 33 bits without: their products with k < 2**20 are exact.
 * Enough for the double nearest a multiple of pi/2. */
#define FG_TRIG_LIMIT_F64 1e6
typedef struct {
    double hi, lo;
    uint64_t bits;
} fg_reduced_f64;

FG_INLINE fg_reduced_f64 fg_trig_reduce_f64(double x)
{
    double t = fg_mad_f64(x, 0.6366197723675814, FG_MAGIC_F64);
    double k = t - FG_MAGIC_F64;
    fg_reduced_f64 out;
#if FG_HAVE_FMA
    double r0 = fma(-k, 1.5707963267948966, x);
    double r1 = fma(-k, 6.12323399538461e-17, r0);
    double e1 = fma(-k, 6.12323399538461e-17, r0 - r1);
    double e = fma(-k, 3.5215598651832e-27, e1);
#else
    double r0 = x - k * 1.5707963267341256;
    double w1 = k * 6.077100506303966e-11;
    double s1 = r0 - w1;
    double e1 = (r0 - s1) - w1;
    double w2 = k * 2.0222662487111665e-21;
    double r1 = s1 - w2;
    double e = (((s1 - r1) - w2) + e1) - k * 8.4784276603689e-32;
#endif
    out.hi = r1 + e;
    out.lo = (r1 - out.hi) + e;
    out.bits = fg_bits_f64(t);
    return out;
}

/* sin(hi + lo) = hi + tail: minimax (Remez), error 2**-58.0. */
FG_INLINE double fg_sin_tail_f64(double hi, double lo)
{
    double z = hi * hi;
    double p = fg_poly6_f64(z,
        -0.16666666666666632, 0.008333333333322403, -0.0001984126982979858,
        2.755731368857919e-06, -2.5050757572588134e-08, 1.5896763118493564e-10);
    return fg_mad_f64(z * hi, p, fg_mad_f64(-0.5 * z, lo, lo));
}

/* cos(hi + lo) = 1 - hi*hi/2 + ..., as a pair: minimax (Remez), error 2**-63. */
FG_INLINE fg_pair_f64 fg_cos_pair_f64(double hi, double lo)
{
    double z = hi * hi;
    double h = 0.5 * z;
    double p = fg_poly6_f64(z,
        0.04166666666666665, -0.0013888888888881343, 2.4801587293348876e-05,
        -2.7557315334194506e-07, 2.087584272830632e-09, -1.136526090017609e-11);
    fg_pair_f64 out;
    out.hi = 1.0 - h;
    out.lo = ((1.0 - out.hi) - h) + fg_mad_f64(z * z, p, -hi * lo);
    return out;
}

/* sin(r + q pi/2) where the low bits of `bits` are q. */
FG_INLINE double fg_sin_quadrant_f64(fg_reduced_f64 r, uint64_t bits)
{
    double s = r.hi + fg_sin_tail_f64(r.hi, r.lo);
    fg_pair_f64 c = fg_cos_pair_f64(r.hi, r.lo);
    /* the mask is all ones where q is odd */
    uint64_t odd = 0 - (bits & 1);
    uint64_t y = (fg_bits_f64(s) & ~odd) | (fg_bits_f64(c.hi + c.lo) & odd);
    return fg_from_bits_f64(y ^ ((bits & 2) << 62));
}

/* Below 0.8 ulp. */
FG_INLINE double fg_sin_f64(double x)
{
    fg_reduced_f64 r = fg_trig_reduce_f64(x);
    double y = fg_sin_quadrant_f64(r, r.bits);
    return fabs(x) < 1e-9 ? x : y;
}

/* Below 0.9 ulp. */
FG_INLINE double fg_cos_f64(double x)
{
    fg_reduced_f64 r = fg_trig_reduce_f64(x);
    return fg_sin_quadrant_f64(r, r.bits + 1);
}

/* tan of the reduced argument, r + r**3 P(r*r) (minimax, Remez, error 2**-59.9),
 * or -1/tan with one Newton step from the pair.  Below 1.3 ulp. */
FG_INLINE double fg_tan_f64(double x)
{
    fg_reduced_f64 r = fg_trig_reduce_f64(x);
    double z = r.hi * r.hi;
    double p = fg_poly15_f64(z,
        0.33333333333333354, 0.13333333333328645, 0.05396825397145974,
        0.021869488432840818, 0.008863237445854712, 0.0035921053605302337,
        0.001456016386458646, 0.0005889996796804305, 0.00024329944403792388,
        8.46514035557982e-05, 6.532779641935479e-05, -2.3339798927003836e-05,
        4.6793561797484093e-05, -2.3392514109033508e-05, 9.608955389173434e-06);
    double tail = fg_mad_f64(z * r.hi, p, fg_mad_f64(z, r.lo, r.lo));
    double t = r.hi + tail, tlo = (r.hi - t) + tail;
    double q = -1.0 / t;
    double e = fg_mad_f64(q, tlo, fg_mul_error_f64(q, t, -1.0));
    double inverse = fg_mad_f64(q, e, q);
    int odd = fg_from_bits_f64((r.bits << 63) | 0x3ff0000000000000u) < 0.0;
    double y = odd ? inverse : t;
    return fabs(x) < 1e-9 ? x : y;
}

FG_INLINE int fg_trig_isslow_f64(double x) { return fabs(x) > FG_TRIG_LIMIT_F64; }
FG_INLINE int fg_sin_isslow_f64(double x) { return fg_trig_isslow_f64(x); }
FG_INLINE int fg_cos_isslow_f64(double x) { return fg_trig_isslow_f64(x); }
FG_INLINE int fg_tan_isslow_f64(double x) { return fg_trig_isslow_f64(x); }
FG_INLINE double fg_sin_slow_f64(double x) { return sin(x); }
FG_INLINE double fg_cos_slow_f64(double x) { return cos(x); }
FG_INLINE double fg_tan_slow_f64(double x) { return tan(x); }

/* sin(pi x) / (pi x).  x = k + r exactly, |r| <= 1/2; sin(pi r) / pi is
 * r + r**3 P(r*r) up to 1/4 and 1/pi + u*u Q(u*u), u = 1/2 - |r|, above (minimax,
 * Remez, errors 2**-57.9 and 2**-60).  Exactly 0 at the integers, and NaN at
 * infinity as in NumPy.  Below 1.3 ulp. */
FG_INLINE double fg_sinc_f64(double x)
{
    double a = fabs(x);
    double t = a + FG_TWO52_F64;
    double r = a < FG_TWO52_F64 ? a - (t - FG_TWO52_F64) : 0.0 * a;
    double b = fabs(r), u = 0.5 - b;
    double v = u * u, z = r * r;
    double small = z * b * fg_poly6_f64(z,
        -1.6449340668482229, 0.8117424252822524, -0.1907518240090674,
        0.026147842475961778, -0.002345953206818802, 0.00014692154814331348);
    double large = fg_mad_f64(v, fg_poly7_f64(v,
        -1.5707963267948966, 1.2919281950124866, -0.42502733997875014,
        0.07490806611283223, -0.008214586851457487, 0.0006141681136629829,
        -3.29666247127644e-05), -1.9678676675182486e-17);
    double head = b < 0.25 ? b : 0.3183098861837907;
    double tail = b < 0.25 ? small : large;
    double n = head + tail, nlo = (head - n) + tail;
    double inverse = 1.0 / a;
    double q = n * inverse;
    double y = fg_mad_f64(nlo - fg_mul_error_f64(q, a, n), inverse, q);
    /* the sign of sin(pi x) is that of r, turned where k is odd; no -0.0 */
    uint64_t sign = (fg_bits_f64(t) << 63) ^ (fg_bits_f64(r) & 0x8000000000000000u);
    return a < 1e-9 ? 1.0 : fg_from_bits_f64(fg_bits_f64(y) ^ sign) + 0.0;
}

/* (arcsin(sqrt z) / sqrt z - 1) / z on [0, 1/4]: minimax (Remez), error
 * 2**-59.7. */
FG_INLINE double fg_arcsin_tail_f64(double z)
{
    return fg_poly13_f64(z,
        0.1666666666666671, 0.07499999999981029, 0.044642857166804564,
        0.030381943022886593, 0.022372207275552024, 0.01735173506759396,
        0.013979488506019367, 0.011408878969458969, 0.010728649554063878,
        0.003887952709743781, 0.021293210388082042, -0.020446127638808237,
        0.03230084805258205);
}

/* sqrt(z) and its rounding error, for 0 <= z <= 1/2. */
FG_INLINE fg_pair_f64 fg_sqrt_pair_f64(double z)
{
    fg_pair_f64 out;
    out.hi = sqrt(z);
    out.lo = -0.5 * fg_mul_error_f64(out.hi, out.hi, z) / (out.hi + 1e-200);
    return out;
}

#define FG_PIO2_HI_F64 1.5707963267948966
#define FG_PIO2_LO_F64 6.123233995736766e-17

/* |x| <= 1/2: x + x**3 P(x*x).  Above: pi/2 - 2 arcsin(sqrt((1-|x|)/2)).
 * Below 1.2 ulp. */
FG_INLINE double fg_arcsin_f64(double x)
{
    double a = fabs(x);
    int large = a > 0.5;
    double z = large ? fg_mad_f64(a, -0.5, 0.5) : a * a;
    double s = large ? sqrt(z) : a;
    double t = s * z * fg_arcsin_tail_f64(z);
    double u = FG_PIO2_HI_F64 - 2.0 * s;
    double v = ((FG_PIO2_HI_F64 - u) - 2.0 * s) + fg_mad_f64(t, -2.0, FG_PIO2_LO_F64);
    return copysign(large ? u + v : s + t, x);
}

/* Below 1.2 ulp. */
FG_INLINE double fg_arccos_f64(double x)
{
    double a = fabs(x);
    int large = a > 0.5;
    double z = large ? fg_mad_f64(a, -0.5, 0.5) : a * a;
    double s = large ? sqrt(z) : x;
    double t = s * z * fg_arcsin_tail_f64(z);
    double middle = FG_PIO2_HI_F64 - (s + (t - FG_PIO2_LO_F64));
    double edge = 2.0 * (s + t);
    double far = 2.0 * (FG_PIO2_HI_F64 - (s + (t - FG_PIO2_LO_F64)));
    return large ? (x < 0.0 ? far : edge) : middle;
}

/* (arctan(q) - q) / q**3 in z = q*q on [0, 1]: minimax (Remez), error 2**-57.5. */
FG_INLINE double fg_arctan_tail_f64(double q)
{
    double z = q * q;
    return z * q * fg_mad_f64(z, fg_poly19_f64(z,
        0.19999999999979218, -0.14285714283920944, 0.11111111041823138,
        -0.0909090755944261, 0.07692285826832684, -0.06666449801412336,
        0.05880785108554345, -0.0525461103352191, 0.04725884302515036,
        -0.04228195463778964, 0.03682009130849972, -0.03017892160855241,
        0.022314986228468284, -0.014205174353186318, 0.007408290880931895,
        -0.0029921881577956253, 0.0008686591946187105, -0.0001601432000660133,
        1.4015061586352792e-05), -0.33333333333333287);
}

/* pi/2 - arctan(1/|x|) above 1.  Below 1.5 ulp. */
FG_INLINE double fg_arctan_f64(double x)
{
    double a = fabs(x);
    int large = a > 1.0;
    double q = large ? -1.0 / a : a;
    double t = fg_arctan_tail_f64(q);
    double base = large ? FG_PIO2_HI_F64 : 0.0;
    double y = base + q;
    y += ((base - y) + q) + (t + (large ? FG_PIO2_LO_F64 : 0.0));
    return copysign(y, x);
}

/* The angle of (x, y): arctan of the smaller over the larger magnitude, moved
 * to its octant.  Below 1.5 ulp. */
FG_INLINE double fg_arctan2_f64(double y, double x)
{
    double ax = fabs(x), ay = fabs(y);
    int steep = ay > ax;
    double n = steep ? ax : ay, d = steep ? ay : ax;
    double q0 = n == d ? 1.0 : n / d;
    double q1 = d == 0.0 ? 0.0 : q0;
    double q = (ax != ax) | (ay != ay) ? FG_NAN_F64 : q1;
    double t = fg_arctan_tail_f64(q);
    int left = copysign(1.0, x) < 0.0;
    /* angle = base + sign * arctan(q) */
    double base = steep ? FG_PIO2_HI_F64 : (left ? 2.0 * FG_PIO2_HI_F64 : 0.0);
    double rest = steep ? FG_PIO2_LO_F64 : (left ? 2.0 * FG_PIO2_LO_F64 : 0.0);
    double minus = steep == left ? 1.0 : -1.0;
    double mq = minus * q;
    double angle = base + mq;
    angle += ((base - angle) + mq) + (minus * t + rest);
    return copysign(angle, y);
}

/* ------------------------------------------------------------- roots */

FG_INLINE double fg_sqrt_f64(double x) { return sqrt(x); }

/* x = 2**(3q) y, y in [1, 8).  A polynomial for y**(-1/3) (2**-14.7) gives h
 * with 17 bits, so that h**3 is exact; y = h**3 / (1 - e) and the series of
 * (1 - e)**(-1/3) finish.  Below 0.6 ulp. */
FG_INLINE double fg_cbrt_f64(double x)
{
    double a = fabs(x);
    int small = a < FG_MIN_F64;
    uint64_t u = fg_bits_f64(a * (small ? 18014398509481984.0 : 1.0));
    double e = fg_from_bits_f64((u >> 52) | 0x4330000000000000u) - (FG_TWO52_F64 + 1023.0);
    double t = fg_mad_f64(e - 1.0, 1.0 / 3.0, FG_POW2_MAGIC_F64);
    double rem = fg_mad_f64(t - FG_POW2_MAGIC_F64, -3.0, e);
    double scale = rem == 0.0 ? 1.0 : (rem == 1.0 ? 2.0 : 4.0);
    double root = rem == 0.0 ? 1.0 : (rem == 1.0 ? 1.2599210498948732 : 1.5874010519681994);
    double m = fg_from_bits_f64((u & 0x000fffffffffffffu) | 0x3ff0000000000000u);
    double y = m * scale;
    double r = fg_poly5_f64(m,
        1.6700066428047535, -1.1728798906496765, 0.6954822484538277,
        -0.22123765786934588, 0.028590989413028713);
    double g = r * r * m * root;
    double h = fg_from_bits_f64(fg_bits_f64(g) & 0xfffffff000000000u);
    double d = (y - h * h * h) / y;
    double p = fg_horner4_f64(d, 1.0 / 3.0, 2.0 / 9.0, 14.0 / 81.0, 35.0 / 243.0);
    h = fg_mad_f64(h * d, p, h);
    h *= fg_pow2_f64(t - (small ? 18.0 : 0.0));
    return copysign((a > 0.0) & (a < FG_INF_F64) ? h : a, x);
}

/* sqrt(x*x + y*y), scaled by a power of two away from overflow and underflow.
 * Below 1.2 ulp. */
FG_INLINE double fg_hypot_f64(double x, double y)
{
    double a = fabs(x), b = fabs(y);
    double m = a > b ? a : b;
    double down = m > 1e150 ? 0x1p-600 : (m < 1e-150 ? 0x1p600 : 1.0);
    double up = m > 1e150 ? 0x1p600 : (m < 1e-150 ? 0x1p-600 : 1.0);
    double p = a * down, q = b * down;
    double r = sqrt(fg_mad_f64(p, p, q * q)) * up;
    return (a == FG_INF_F64) | (b == FG_INF_F64) ? FG_INF_F64 : r;
}

/* ------------------------------------------------------------- power */

FG_INLINE double fg_power_slow_f64(double x, double y) { return pow(x, y); }

#if FG_HAVE_FMA

FG_INLINE int fg_power_isslow_f64(double x, double y)
{
    double a = fabs(x);
    return !((a >= FG_MIN_F64) & (a < FG_INF_F64) & (fabs(y) < 17592186044416.0));
}

/* log(1+f) - 2s - 2 s**3 / 3 over s**5: minimax (Remez), error 2**-65.6
 * relative to the log. */
FG_INLINE double fg_log_pair_tail_f64(double z)
{
    return fg_poly7_f64(z,
        0.40000000000000396, 0.28571428570864765, 0.22222222399109276,
        0.18181793898204326, 0.15386355996833842, 0.13265449577836036,
        0.1312172796492158);
}

/* log |x| in about 64 bits: s = f/(2+f) and the first two terms of the series
 * as pairs. */
FG_INLINE fg_pair_f64 fg_log_double_f64(double a)
{
    fg_split_f64 p = fg_log_split_f64(a);
    double d = 2.0 + p.f, dlo = (2.0 - d) + p.f;
    double inverse = 1.0 / d;
    double s = p.f * inverse;
    double slo = fma(-s, dlo, fma(-s, d, p.f)) * inverse;
    double z = s * s, zlo = fma(2.0 * s, slo, fma(s, s, -z));
    double c = z * s, clo = fma(z, slo, fma(zlo, s, fma(z, s, -c)));
    double t = c * 0.6666666666666666;
    double terror = fma(c, 0.6666666666666666, -t);
    double tlo = fma(c, 3.700743415417188e-17, fma(clo, 0.6666666666666666, terror));
    double tail = fma(c * z, fg_log_pair_tail_f64(z), fma(2.0, slo, tlo));
    double h = 2.0 * s + t, l = (2.0 * s - h) + t;
    double k = p.k * 0.6931471805598903; /* 42 bits: exact */
    double kh = k + h;
    double kl = ((k - kh) + h) + fma(p.k, 5.497923018708371e-14, l + tail);
    fg_pair_f64 out;
    out.hi = kh + kl;
    out.lo = (kh - out.hi) + kl;
    return out;
}

/* x**y = exp(y log|x|), with the sign of x for odd y.  Below 1.1 ulp. */
FG_INLINE double fg_power_f64(double x, double y)
{
    fg_pair_f64 l = fg_log_double_f64(fabs(x));
    double p = y * l.hi;
    double c0 = p > 750.0 ? 750.0 : p;
    double c = c0 < -800.0 ? -800.0 : c0;
    double plo = fma(y, l.lo, fma(y, l.hi, -p)); /* |plo| < 1, as |y| < 2**44 */
    double t = fma(c, FG_LOG2E_F64, FG_SCALE_MAGIC_F64);
    double k = t - FG_SCALE_MAGIC_F64;
    double r0 = fma(k, -FG_LN2_HI_F64, c);
    double v = fma(k, -FG_LN2_LO_F64, plo);
    double r = r0 + v;
    double e = 1.0 + fma(r * r, fg_exp_tail_f64(r), r);
    double magnitude = fg_scale_f64(e, t);
    double whole = y + FG_MAGIC_F64;
    uint64_t odd = fg_bits_f64(whole) << 63;
    double negative = (whole - FG_MAGIC_F64) == y
        ? fg_from_bits_f64(fg_bits_f64(magnitude) | odd) : FG_NAN_F64;
    return x < 0.0 ? negative : magnitude;
}

#else /* two doubles without FMA cost more than the C library's pow */

FG_INLINE int fg_power_isslow_f64(double x, double y) { (void)x; (void)y; return 0; }
FG_INLINE double fg_power_f64(double x, double y) { return pow(x, y); }

#endif

/* --------------------------------------------------- rounding, division */

#if defined(__SSE4_1__) || !defined(__SSE2__)

FG_INLINE double fg_floor_f64(double x) { return floor(x); }
FG_INLINE double fg_ceil_f64(double x) { return ceil(x); }
FG_INLINE double fg_trunc_f64(double x) { return trunc(x); }
FG_INLINE double fg_round_f64(double x) { return rint(x); }

#else /* SSE2 has no rounding instruction */

FG_INLINE double fg_round_f64(double x)
{
    double a = fabs(x);
    double r = (a + FG_TWO52_F64) - FG_TWO52_F64;
    return copysign(a < FG_TWO52_F64 ? r : a, x);
}

FG_INLINE double fg_floor_f64(double x)
{
    double r = fg_round_f64(x);
    double y = r - (r > x ? 1.0 : 0.0);
    return r > x ? y : r;
}

FG_INLINE double fg_ceil_f64(double x)
{
    double r = fg_round_f64(x);
    double y = copysign(r + 1.0, x);
    return r < x ? y : r;
}

FG_INLINE double fg_trunc_f64(double x)
{
    return copysign(fg_floor_f64(fabs(x)), x);
}

#endif

/* Where x / y is too large (2**51), or an operand too extreme, for the exact
 * remainder below. */
FG_INLINE int fg_divmod_isslow_f64(double x, double y)
{
    double a = fabs(x), b = fabs(y);
    return !((a < 1e270) & (b > 1e-270) & (b < 1e270) & (a < b * 2251799813685248.0));
}

/* trunc(x/y) and fmod(x, y), both exact: the quotient may come out one too
 * large in magnitude, the remainder's sign tells. */
typedef struct {
    double quotient, remainder;
} fg_divmod_f64;

FG_INLINE fg_divmod_f64 fg_truncated_divmod_f64(double x, double y)
{
    double a = fabs(x), b = fabs(y);
    double t = (a / b + FG_TWO52_F64) - FG_TWO52_F64;
#if FG_HAVE_FMA
    double r = fma(-t, b, a);
#else
    double p = t * b;
    double r = (a - p) - fg_mul_error_f64(t, b, p);
#endif
    fg_divmod_f64 out;
    out.quotient = r < 0.0 ? t - 1.0 : t;
    out.remainder = r < 0.0 ? r + b : r;
    return out;
}

FG_INLINE double fg_fmod_slow_f64(double x, double y) { return fmod(x, y); }
FG_INLINE int fg_fmod_isslow_f64(double x, double y) { return fg_divmod_isslow_f64(x, y); }
/* Exact. */
FG_INLINE double fg_fmod_f64(double x, double y)
{
    return copysign(fg_truncated_divmod_f64(x, y).remainder, x);
}

/* The remainder with the sign of y: NumPy's npy_divmod. */
FG_INLINE double fg_mod_sign_f64(double r, double y)
{
    int moved = (r != 0.0) & ((r < 0.0) != (y < 0.0));
    double zero = copysign(0.0, y);
    return r == 0.0 ? zero : (moved ? r + y : r);
}

FG_INLINE double fg_mod_slow_f64(double x, double y)
{
    double r = fmod(x, y);
    return y == 0.0 ? r : fg_mod_sign_f64(r, y);
}

FG_INLINE int fg_mod_isslow_f64(double x, double y) { return fg_divmod_isslow_f64(x, y); }
FG_INLINE double fg_mod_f64(double x, double y)
{
    return fg_mod_sign_f64(fg_fmod_f64(x, y), y);
}

FG_INLINE double fg_floor_divide_slow_f64(double x, double y)
{
    double r = fmod(x, y);
    double d = (x - r) / y;
    double f;
    if (y == 0.0)
        return x / y;
    if (r != 0.0 && (r < 0.0) != (y < 0.0))
        d -= 1.0;
    if (d == 0.0)
        return copysign(0.0, x / y);
    f = floor(d);
    return d - f > 0.5 ? f + 1.0 : f;
}

FG_INLINE int fg_floor_divide_isslow_f64(double x, double y) { return fg_divmod_isslow_f64(x, y); }
FG_INLINE double fg_floor_divide_f64(double x, double y)
{
    fg_divmod_f64 d = fg_truncated_divmod_f64(x, y);
    uint64_t sign = (fg_bits_f64(x) ^ fg_bits_f64(y)) & 0x8000000000000000u;
    double up = d.quotient + (d.remainder != 0.0 ? 1.0 : 0.0);
    double magnitude = fg_from_bits_f64(sign | 0x3ff0000000000000u) < 0.0 ? up : d.quotient;
    return fg_from_bits_f64(fg_bits_f64(magnitude) | sign);
}

/* ---------------------------------------------------- error functions */

/* (erf(x)/x - 2/sqrt(pi)) / x**2 in z = x*x on [0, 1]: minimax (Remez), error
 * 2**-62.5 relative to erf. */
FG_INLINE double fg_erf_small_f64(double x)
{
    double z = x * x;
    double t = z * fg_poly12_f64(z,
        -0.37612638903183754, 0.11283791670954992, -0.026866170645093904,
        0.005223977624957138, -0.0008548326987711879, 0.00012055331332015949,
        -1.4925599993453242e-05, 1.6461069006878473e-06,
        -1.6350975783775056e-07, 1.4663879584345886e-08,
        -1.1387547585848796e-09, 5.980345650826137e-11);
    return fg_mad_f64(x, 0.12837916709551256 + t, x);
}

/* erfc(a) for 0.4 <= a <= 27.5: e**(-a*a) G / (1 + 2a), with
 * G = (1+2a) erfc(a) e**(a*a) a polynomial in q = (a-4)/(a+4), minimax (Remez),
 * error 2**-56.3.  The square, the exponential and the quotient are pairs. */
FG_INLINE double fg_erfc_large_f64(double a)
{
    double a2 = a + a, d = 1.0 + a2;
    double dlo = a2 > 1.0 ? (a2 - d) + 1.0 : (1.0 - d) + a2;
    double b = a + 4.0;
    double inverse = 1.0 / (b * d);
    double invb = inverse * d, invd = inverse * b;
    double q0 = (a - 4.0) * invb;
    double q = fg_mad_f64(-invb, fg_mul_error_f64(q0, b, a - 4.0), q0);
    double p = fg_poly23_f64(q,
        0.2329951186255525, -0.13962111684056286, 0.015379652102620036,
        0.06809705425473443, -0.10103906603631733, 0.09373283499688789,
        -0.0663303658121857, 0.03716751556104319, -0.01619773405294532,
        0.005031969768477938, -0.0007577733737779956, -0.00019925557368976455,
        0.0001506223421831397, -2.440295218616429e-05, -1.122495498086749e-05,
        5.717443232605967e-06, 3.014727273867187e-07, -8.346171034586064e-07,
        6.274066597938221e-08, 1.1498743764623777e-07, -7.822039602925485e-09,
        -1.357298301646406e-08, -1.7762137782303512e-09);
    double g = 1.0 + p, glo = (1.0 - g) + p;
    double y = g * invd;
    double ylo = (glo - fg_mul_error_f64(y, d, g) - y * dlo) * invd;
    double s = a * a;
    double slo = fg_mul_error_f64(a, a, s);
    double t = fg_mad_f64(-s, FG_LOG2E_F64, FG_SCALE_MAGIC_F64);
    double k = t - FG_SCALE_MAGIC_F64;
    double r0 = fg_mad_f64(k, -FG_LN2_HI_F64, -s);
    double v = fg_mad_f64(k, -FG_LN2_LO_F64, -slo);
    double r = r0 + v, rlo = (r0 - r) + v;
    double w = fg_mad_f64(r * r, fg_exp_tail_f64(r), fg_mad_f64(r, rlo, rlo));
    double e0 = 1.0 + r, e0lo = (1.0 - e0) + r + w;
    double m = y * e0;
    double mlo = fg_mad_f64(y, e0lo, ylo * e0) + fg_mul_error_f64(y, e0, m);
    return fg_scale_f64(m + mlo, t);
}

/* yes ? a : b for finite a and b by arithmetic.  A ?: here would become a branch
 * around one of the long computations, which GCC then does not vectorise. */
FG_INLINE double fg_choose_f64(int yes, double a, double b)
{
    double w = yes ? 1.0 : 0.0;
    return w * a + (1.0 - w) * b;
}

/* Below 1.3 ulp. */
FG_INLINE double fg_erf_f64(double x)
{
    double a = fabs(x);
    double b = a > 6.5 ? 6.5 : a;
    double large = 1.0 - fg_erfc_large_f64(b);
    return copysign(fg_choose_f64(b < 0.75, fg_erf_small_f64(b), large), x);
}

/* 1 - erf(x) on (-3/4, 1/2), 2 - erfc(-x) below.  Below 1.5 ulp. */
FG_INLINE double fg_erfc_f64(double x)
{
    double a = fabs(x);
    double b = a > 27.5 ? 27.5 : a;
    double large = fg_erfc_large_f64(b);
    double base = x < 0.0 ? 2.0 : 0.0, sign = x < 0.0 ? -1.0 : 1.0;
    double c = copysign(b, x);
    double middle = 1.0 - fg_erf_small_f64(c);
    return fg_choose_f64((x > -0.75) & (x < 0.5), middle, base + sign * large);
}

/* ---------------------------------------------------- gamma functions */

/* log |Gamma(x)|, from the C library (not vectorised).  +inf at 0 and the
 * negative integers.  With glibc the error is below 8 ulp of max(1, |result|),
 * which includes the zeros. */
#if defined(__GLIBC__) || defined(__APPLE__)
extern double lgamma_r(double, int *);
FG_INLINE double fg_gammaln_f64(double x)
{
    int sign;
    return x == -FG_INF_F64 ? -FG_INF_F64 : lgamma_r(x, &sign);
}
#else
FG_INLINE double fg_gammaln_f64(double x)
{
    return x == -FG_INF_F64 ? -FG_INF_F64 : lgamma(x);
}
#endif

/* psi(x), the derivative of log Gamma, for 1 <= x <= 2: (x - x0) times a minimax
 * polynomial (Remez, error 2**-56) in x - 3/2, x0 = x0hi + x0lo the zero. */
FG_INLINE double fg_digamma_12_f64(double x)
{
    return ((x - 1.4616321449683622) - 9.549995429965697e-17) *
        fg_poly22_f64(x - 1.5,
        0.951055876031833, -0.4236274212814606, 0.24054248424077398,
        -0.14840492305389008, 0.09498872445497247, -0.06192213327469515,
        0.04076083381081246, -0.02697579669127557, 0.017907252481440133,
        -0.011908219418998547, 0.007926944017118727, -0.005279946262323868,
        0.003519012140162401, -0.0023454207377814206, 0.001556599370919429,
        -0.0010368423427485826, 0.0007234369756846642, -0.00048472976137621385,
        0.00022702500299969934, -0.00014697853532024332, 0.0002598516747358276,
        -0.00017656247895734932);
}

/* psi(x), scalar: reflection for x < 0, recurrence to [1, 2] or to x >= 10, then
 * the asymptotic series.  NaN at the negative integers, -+inf at +-0.  The
 * error is below 8 ulp of max(1, |result|), which includes the zeros at x < 0. */
FG_INLINE double fg_digamma_f64(double x)
{
    double y = 0.0, z;
    if (x == 0.0)
        return copysign(FG_INF_F64, -x);
    if (x < 0.0) {
        double f = x - floor(x); /* tan has period pi */
        if (f == 0.0 || x == -FG_INF_F64)
            return FG_NAN_F64;
        f = f > 0.5 ? f - 1.0 : f;
        y = -3.141592653589793 / tan(3.141592653589793 * f);
        if (x > -1e-3)
            y = -1.0 / x + 3.289868133696453 * x; /* pi / tan(pi x) */
        x = 1.0 - x;
    }
    if (x < 1.0) {
        y -= 1.0 / x;
        x += 1.0;
    }
    if (x <= 2.0)
        return y + fg_digamma_12_f64(x);
    if (x < 3.0)
        return y + (1.0 / (x - 1.0) + fg_digamma_12_f64(x - 1.0));
    z = 0.0;
    while (x < 10.0) {
        z += 1.0 / x;
        x += 1.0;
    }
    if (x < 1e17) {
        double w = 1.0 / (x * x);
        z += 0.5 / x + w * fg_horner7_f64(w, 1.0 / 12, -1.0 / 120, 1.0 / 252, -1.0 / 240,
                                          1.0 / 132, -691.0 / 32760, 1.0 / 12);
    }
    return y + (log(x) - z);
}

/* -------------------------------------------------------- slow twins */

#define FG_SLOW_sin_f64 1
#define FG_SLOW_cos_f64 1
#define FG_SLOW_tan_f64 1
#define FG_SLOW_power_f64 1
#define FG_SLOW_fmod_f64 1
#define FG_SLOW_mod_f64 1
#define FG_SLOW_floor_divide_f64 1

#endif
