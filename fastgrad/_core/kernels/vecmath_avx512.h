/* Elementary functions of eight float64 at a time, for AVX-512, where it has instructions that plain C cannot ask for: a
 * table of 16 numbers in two registers, and scaling by powers of two that knows about overflow and subnormals.
 *
 * Where FG_WIDE_NAME_f64 is defined, the loop over NAME and its value at one number use fg_NAME_wide_f64 instead of
 * fg_NAME_f64: the same bits wherever a number stands, other last bits than at other levels.  Special values and errors
 * are those that vecmath_f64.h promises.
 *
 * Both functions take out a power of two, k + j/16: adding FG_SIXTEENTHS_F64 rounds to sixteenths, and leaves j in the low
 * four bits, the only ones that the look-up reads; the scaling rounds k + j/16 down to k. */
#ifndef FASTGRAD_VECMATH_AVX512_H
#define FASTGRAD_VECMATH_AVX512_H

#if defined(__AVX512F__)

#include <immintrin.h>
#include "vecmath_f64.h"

#define FG_WIDE_exp_f64 1
#define FG_WIDE_tanh_f64 1

#define FG_SIXTEENTHS_F64 (FG_MAGIC_F64 / 16)

#define FG_WIDE_F64(number) _mm512_set1_pd(number)

/* Entry j mod 16 of a table, j in the low bits of t. */
FG_INLINE __m512d fg_lookup_f64(const double table[16], __m512d t)
{
    return _mm512_permutex2var_pd(_mm512_loadu_pd(table), _mm512_castpd_si512(t), _mm512_loadu_pd(table + 8));
}

/* 2**(j/16) */
static const double fg_exp_table_f64[16] = {
    1.0, 1.0442737824274138, 1.0905077326652577, 1.1387886347566916,
    1.189207115002721, 1.241857812073484, 1.2968395546510096, 1.3542555469368927,
    1.4142135623730951, 1.4768261459394993, 1.5422108254079407, 1.6104903319492543,
    1.681792830507429, 1.7562521603732995, 1.8340080864093424, 1.9152065613971474};

/* Below 1.1 ulp.  The tail (e**r - 1 - r) / r**2 is minimax (Remez), error 2**-56.2 relative to e**r.  The bounds come
 * second in min and max, which return that operand where one is NaN: so it must be x. */
FG_INLINE __m512d fg_exp_wide_f64(__m512d x)
{
    __m512d y = _mm512_max_pd(FG_WIDE_F64(-746.0), _mm512_min_pd(FG_WIDE_F64(710.0), x));
    __m512d t = _mm512_fmadd_pd(y, FG_WIDE_F64(FG_LOG2E_F64), FG_WIDE_F64(FG_SIXTEENTHS_F64));
    __m512d k = _mm512_sub_pd(t, FG_WIDE_F64(FG_SIXTEENTHS_F64));
    __m512d r = _mm512_fnmadd_pd(k, FG_WIDE_F64(FG_LN2_LO_F64), _mm512_fnmadd_pd(k, FG_WIDE_F64(FG_LN2_HI_F64), y));
    __m512d r2 = _mm512_mul_pd(r, r);
    __m512d p01 = _mm512_fmadd_pd(r, FG_WIDE_F64(0.16666666664413352), FG_WIDE_F64(0.5000000000000006));
    __m512d p23 = _mm512_fmadd_pd(r, FG_WIDE_F64(0.00833347206225699), FG_WIDE_F64(0.04166666665963072));
    __m512d tail = _mm512_fmadd_pd(r2, _mm512_fmadd_pd(r2, FG_WIDE_F64(0.0013889129383280986), p23), p01);
    __m512d s = fg_lookup_f64(fg_exp_table_f64, t);
    __m512d p = _mm512_fmadd_pd(r2, tail, r);
    return _mm512_scalef_pd(_mm512_fmadd_pd(s, p, s), k);
}

/* 2 2**(j/16), and what to add to p for the rounding of that and of ln(2)/2. */
static const double fg_tanh_table_f64[16] = {
    2.0, 2.0885475648548275, 2.1810154653305154, 2.277577269513383,
    2.378414230005442, 2.483715624146968, 2.5936791093020193, 2.7085110938737853,
    2.8284271247461903, 2.9536522918789987, 3.0844216508158815, 3.2209806638985086,
    3.363585661014858, 3.512504320746599, 3.668016172818685, 3.830413122794295};
static const double fg_tanh_errors_f64[16] = {
    0.0, -5.18171201308821e-17, 3.823727619180305e-18, -4.8553993974430974e-17,
    -2.5438737220049387e-17, -2.672599442911229e-17, -1.7033313939825705e-17, -3.495472395350142e-17,
    2.8381426253693866e-17, 6.7226324801362454e-18, -3.0122363361355204e-17, -1.1294215673436705e-17,
    -2.7274611148443183e-17, -1.0601542841125772e-17, -1.0400038796676503e-17, 2.7000625963870168e-17};

/* tanh a = n / (2 - n) for n = 1 - e**(-2a) = (1 - s) + 2 s p, where e**(-2a) = s e**(-2r) and p = (1 - e**(-2r)) / 2.
 * a - k ln(2)/2 needs one constant, as e**(-2a) is small where k is large.  The tail (p - r) / r**2 is minimax (Remez),
 * error 2**-60 relative to p.
 *
 * The quotient of n + nlo and d + dlo = 2 - (n + nlo) is n / d and a correction, for which d/2 - 1.457 is near enough to
 * -1/d.  Below 1.9 ulp. */
FG_INLINE __m512d fg_tanh_wide_f64(__m512d x)
{
    __m512d one = FG_WIDE_F64(1.0), two = FG_WIDE_F64(2.0), half = FG_WIDE_F64(0.5);
    __m512d a = _mm512_min_pd(FG_WIDE_F64(22.0), _mm512_abs_pd(x));
    __m512d t = _mm512_fnmadd_pd(a, FG_WIDE_F64(2 * FG_LOG2E_F64), FG_WIDE_F64(FG_SIXTEENTHS_F64));
    __m512d k = _mm512_sub_pd(t, FG_WIDE_F64(FG_SIXTEENTHS_F64));
    __m512d r = _mm512_fmadd_pd(k, FG_WIDE_F64(0.34657359027997264), a);
    __m512d r2 = _mm512_mul_pd(r, r);
    __m512d p01 = _mm512_fmadd_pd(r, FG_WIDE_F64(0.6666666666666671), FG_WIDE_F64(-1.0000000000000007));
    __m512d p23 = _mm512_fmadd_pd(r, FG_WIDE_F64(0.1333333333186055), FG_WIDE_F64(-0.3333333332950525));
    __m512d p45 = _mm512_fmadd_pd(r, FG_WIDE_F64(0.012698594908508117), FG_WIDE_F64(-0.044445096667437095));
    __m512d tail = _mm512_fmadd_pd(r2, _mm512_fmadd_pd(r2, p45, p23), p01);
    __m512d p = _mm512_add_pd(r, _mm512_fmadd_pd(r2, tail, fg_lookup_f64(fg_tanh_errors_f64, t)));
    __m512d s2 = _mm512_scalef_pd(fg_lookup_f64(fg_tanh_table_f64, t), k);
    __m512d c = _mm512_fnmadd_pd(s2, half, one);
    __m512d clo = _mm512_fnmadd_pd(s2, half, _mm512_sub_pd(one, c));
    __m512d n = _mm512_fmadd_pd(s2, p, c);
    __m512d nlo = _mm512_fmadd_pd(s2, p, _mm512_add_pd(_mm512_sub_pd(c, n), clo));
    __m512d d = _mm512_sub_pd(two, n);
    __m512d dlo = _mm512_sub_pd(_mm512_sub_pd(_mm512_sub_pd(two, d), n), nlo);
    __m512d minus_inverse = _mm512_fmadd_pd(d, half, FG_WIDE_F64(-1.457));
    __m512d q = _mm512_div_pd(n, d);
    __m512d result = _mm512_fmadd_pd(_mm512_fmsub_pd(q, dlo, nlo), minus_inverse, q);
    return _mm512_castsi512_pd(_mm512_ternarylogic_epi64(_mm512_castpd_si512(result), _mm512_castpd_si512(x),
        _mm512_set1_epi64(INT64_MAX), 0xe4)); /* the sign of x */
}

/* function(x) over contiguous memory, and at one number. */
#define FG_WIDE_LOOP_F64(function, n, x, to)                                                                  \
    do {                                                                                                      \
        ptrdiff_t i = 0;                                                                                      \
        for (; i + 8 <= (n); i += 8) _mm512_storeu_pd((to) + i, function(_mm512_loadu_pd((x) + i)));          \
        __mmask8 rest = (__mmask8)((1 << ((n) - i)) - 1);                                                     \
        if (rest) _mm512_mask_storeu_pd((to) + i, rest, function(_mm512_maskz_loadu_pd(rest, (x) + i)));      \
    } while (0)
#define FG_WIDE_ONE_F64(function, x) _mm512_cvtsd_f64(function(_mm512_set1_pd(x)))

#endif
#endif
