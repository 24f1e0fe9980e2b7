/* polygamma(n, x), the n-th derivative of digamma, for whole n >= 0.
 *
 * (-1)**(n + 1) n! zeta(n + 1, x): recurrence up to x >= 10 + n, then the asymptotic series (DLMF 5.11.9, 5.15.8).
 * Left of 0 the recurrence runs too, down to -4096; beyond that, and at the poles, NaN. */

#include <math.h>

static double fg_polygamma_f64(double order, double x) {
    if (order == 0) return fg_digamma_f64(x);
    if (!(order >= 0) || order != (double)(int)order || order > 150 || !(x > -4096)) return NAN;
    if (x <= 0 && x == trunc(x)) return NAN;
    int n = (int)order;
    double factorial = tgamma(order + 1), tail = 0, shift = 10 + order;
    if (isinf(x)) return n % 2 ? 0.0 : -0.0;
    /* zeta(s, x) = sum over k of (x + k)**-s, s = n + 1 */
    while (x < shift) {
        tail += pow(x, -(order + 1));
        x += 1;
    }
    static const double bernoulli[] = {1.0 / 6, -1.0 / 30, 1.0 / 42, -1.0 / 30, 5.0 / 66, -691.0 / 2730, 7.0 / 6,
                                       -3617.0 / 510, 43867.0 / 798, -174611.0 / 330};
    double power = pow(x, -order), inverse2 = 1 / (x * x);
    double zeta = power / order + power / (2 * x);
    double rising = order + 1, term = power * inverse2; /* x**-(s + 1) */
    double ratio = rising / 2;                          /* s (s + 1) ... (s + 2 k - 2) / (2 k)! */
    for (int k = 0; k < 10; k++) {
        zeta += bernoulli[k] * ratio * term;
        term *= inverse2;
        ratio *= (rising + 2 * k + 1) * (rising + 2 * k + 2) / ((2.0 * k + 3) * (2 * k + 4));
    }
    double value = factorial * (zeta + tail);
    return n % 2 ? value : -value;
}

static float fg_polygamma_f32(float order, float x) { return (float)fg_polygamma_f64(order, x); }
