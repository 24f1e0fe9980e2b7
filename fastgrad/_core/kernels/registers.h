/* What vector types of the compiler leave out: the fused multiply-add, and registers that are only partly in memory.
 *
 * -std=c11 keeps GCC from fusing a * b + c by itself (-ffp-contract=off), so products ask for it: that is half their speed.
 * FUSED_f64(a, b, c) works on registers of VECTOR bytes.  LOAD_f64(p, n) and STORE_f64(p, x, n) touch the first n numbers
 * only; they exist where FG_MASKS is 1.  LOW_f64(a, b) is a0 b0 a1 b1 ..., as many as fit, and HIGH_f64(a, b) the rest; they
 * exist where FG_SHUFFLES is 1.  The same for f32. */
#ifndef FG_REGISTERS_H
#define FG_REGISTERS_H

#if defined(__AVX512F__)
#include <immintrin.h>
#define FG_MASKS 1
#define FUSED_f64(a, b, c) ((vec_f64)_mm512_fmadd_pd((__m512d)(a), (__m512d)(b), (__m512d)(c)))
#define FUSED_f32(a, b, c) ((vec_f32)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#define LOAD_f64(p, n) ((vec_f64)_mm512_maskz_loadu_pd((__mmask8)((1u << (n)) - 1), (p)))
#define LOAD_f32(p, n) ((vec_f32)_mm512_maskz_loadu_ps((__mmask16)((1u << (n)) - 1), (p)))
#define STORE_f64(p, x, n) _mm512_mask_storeu_pd((p), (__mmask8)((1u << (n)) - 1), (__m512d)(x))
#define STORE_f32(p, x, n) _mm512_mask_storeu_ps((p), (__mmask16)((1u << (n)) - 1), (__m512)(x))
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define FG_MASKS 1
#define FUSED_f64(a, b, c) ((vec_f64)_mm256_fmadd_pd((__m256d)(a), (__m256d)(b), (__m256d)(c)))
#define FUSED_f32(a, b, c) ((vec_f32)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#define FIRST_f64(n) _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3))
#define FIRST_f32(n) _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
#define LOAD_f64(p, n) ((vec_f64)_mm256_maskload_pd((p), FIRST_f64(n)))
#define LOAD_f32(p, n) ((vec_f32)_mm256_maskload_ps((p), FIRST_f32(n)))
#define STORE_f64(p, x, n) _mm256_maskstore_pd((p), FIRST_f64(n), (__m256d)(x))
#define STORE_f32(p, x, n) _mm256_maskstore_ps((p), FIRST_f32(n), (__m256)(x))
#else
#define FG_MASKS 0
#if defined(__aarch64__) && defined(__GNUC__)
#include <arm_neon.h>
#define FUSED_f64(a, b, c) ((vec_f64)vfmaq_f64((float64x2_t)(c), (float64x2_t)(a), (float64x2_t)(b)))
#define FUSED_f32(a, b, c) ((vec_f32)vfmaq_f32((float32x4_t)(c), (float32x4_t)(a), (float32x4_t)(b)))
#else
#define FUSED_f64(a, b, c) ((a) * (b) + (c))
#define FUSED_f32(a, b, c) ((a) * (b) + (c))
#endif
#endif

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define FG_SHUFFLES 1
#endif
#endif
#ifndef FG_SHUFFLES
#define FG_SHUFFLES 0
#endif

#if VECTOR == 64
#define LOW_f64(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define HIGH_f64(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#define LOW_f32(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define HIGH_f32(a, b) __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif VECTOR == 32
#define LOW_f64(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define HIGH_f64(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#define LOW_f32(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define HIGH_f32(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define LOW_f64(a, b) __builtin_shufflevector(a, b, 0, 2)
#define HIGH_f64(a, b) __builtin_shufflevector(a, b, 1, 3)
#define LOW_f32(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define HIGH_f32(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#endif

#endif
