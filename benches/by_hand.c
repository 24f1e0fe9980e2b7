/* What C written by hand takes for the workloads of program_workloads.py, which compiles this file at bench time.
 *
 * The shortest loops there are, one function a workload, no generality. With OWN_FUNCTIONS the elementary functions are
 * fastgrad's, inlined, else the C library's. Knows nothing about Python: the loop over calls is here, so that what is
 * timed is the work without a call from Python. The Program it is compared with is called from Python. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef OWN_FUNCTIONS
#include "vecmath_f64.h"
#define TANH fg_tanh_f64
#define EXP fg_exp_f64
#else
#define TANH tanh
#define EXP exp
#endif

enum { STEPS = 50, LANES = 32, BLOCK = 512, SUMS = 8 };

/* The chain at one point: in = x, y; out = value and its gradient by x and y. */
static __attribute__((noinline)) void chain_once(const double *in, double *out) {
    double x = in[0], y[STEPS + 1], t[STEPS];
    y[0] = in[1];
    for (int k = 0; k < STEPS; k++) {
        t[k] = TANH(x * y[k] + x);
        y[k + 1] = t[k] + 0.1;
    }
    double gx = 0, gy = 1;
    for (int k = STEPS - 1; k >= 0; k--) {
        double d = gy * (1 - t[k] * t[k]);
        gx += d * (y[k] + 1);
        gy = d * x;
    }
    out[0] = y[STEPS], out[1] = gx, out[2] = gy;
}

void chain_one_input(const double *in, double *out, long times) {
    for (long k = 0; k < times; k++) {
        chain_once(in, out);
        __asm__ volatile("" ::: "memory"); /* each call is done anew */
    }
}

/* The chain at n points, a multiple of LANES, column by column. */
void chain_many_inputs(const double *restrict xs, const double *restrict ys, double *restrict value,
                       double *restrict grad_x, double *restrict grad_y, long n) {
    double y[STEPS + 1][LANES], t[STEPS][LANES], gx[LANES], gy[LANES];
    for (long i = 0; i < n; i += LANES) {
        const double *x = xs + i;
        for (int j = 0; j < LANES; j++) y[0][j] = ys[i + j], gx[j] = 0, gy[j] = 1;
        for (int k = 0; k < STEPS; k++)
            for (int j = 0; j < LANES; j++) {
                t[k][j] = TANH(x[j] * y[k][j] + x[j]);
                y[k + 1][j] = t[k][j] + 0.1;
            }
        for (int k = STEPS - 1; k >= 0; k--)
            for (int j = 0; j < LANES; j++) {
                double d = gy[j] * (1 - t[k][j] * t[k][j]);
                gx[j] += d * (y[k][j] + 1);
                gy[j] = d * x[j];
            }
        for (int j = 0; j < LANES; j++) {
            value[i + j] = y[STEPS][j];
            grad_x[i + j] = gx[j];
            grad_y[i + j] = gy[j];
        }
    }
}

/* sum(tanh(z) exp(-z z / 2) + sqrt(1 + z z)), z = x w + b, and its three gradients: each array once through memory. */
void wave(const double *restrict x, const double *restrict w, const double *restrict b, double *restrict value,
          double *restrict grad_x, double *restrict grad_w, double *restrict grad_b, long n) {
    double sums[SUMS] = {0}, terms[BLOCK];
    for (long start = 0; start < n; start += BLOCK) {
        long size = n - start < BLOCK ? n - start : BLOCK;
        for (long j = 0; j < size; j++) {
            long i = start + j;
            double z = x[i] * w[i] + b[i], t = TANH(z), e = EXP(-z * z / 2), s = sqrt(1 + z * z);
            double dz = (1 - t * t) * e - t * e * z + z / s;
            terms[j] = t * e + s;
            grad_x[i] = dz * w[i];
            grad_w[i] = dz * x[i];
            grad_b[i] = dz;
        }
        for (long j = 0; j < size; j++) sums[j % SUMS] += terms[j];
    }
    for (int k = 1; k < SUMS; k++) sums[0] += sums[k];
    *value = sums[0];
}
