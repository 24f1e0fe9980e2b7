/* Hamiltonian Monte Carlo in C on the log density that a fastgrad Program computes, value and gradient in one call.
 *
 *     cc -O2 -shared -fPIC -o hmc.so hmc.c -lm
 *
 * docs/c-abi.md shows how Python drives it.  Knows nothing about fastgrad but the type of the function. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* program.c_function(): 0 is success. */
typedef int (*program)(const double *x, double *value, double *gradient, void *workspace);

static uint64_t next(uint64_t *state) { /* xorshift64*, Vigna 2016 */
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545F4914F6CDD1DULL;
}

static double uniform(uint64_t *state) { return ((double)(next(state) >> 11) + 0.5) / 9007199254740992.0; }

static double normal(uint64_t *state) { /* Box and Muller */
    double radius = sqrt(-2 * log(uniform(state)));
    return radius * cos(6.283185307179586 * uniform(state));
}

/* Draws n_samples points of dimension n into `samples`, starting from x, which is left at the last one.  Returns how many
   proposals were accepted, or -1 - code where the Program failed, -100 where there is no memory. */
long hmc(program f, void *workspace, int n, double *x, double step, int n_steps, long n_samples, uint64_t seed, double *samples) {
    size_t bytes = (size_t)n * sizeof(double);
    double *memory = malloc(4 * bytes + 8);
    if (!memory) return -100;
    double *q = memory, *p = q + n, *g = p + n, *gx = g + n;
    double value, proposed;
    uint64_t state = seed * 0x9E3779B97F4A7C15ULL + 1;
    long accepted = 0;
    int code = f(x, &value, gx, workspace);

    for (long s = 0; s < n_samples && code == 0; s++) {
        double kinetic = 0, kinetic_after = 0;
        for (int i = 0; i < n; i++) {
            p[i] = normal(&state);
            kinetic += 0.5 * p[i] * p[i];
        }
        memcpy(q, x, bytes);
        memcpy(g, gx, bytes);
        proposed = value;
        for (int k = 0; k < n_steps && code == 0; k++) { /* leapfrog */
            for (int i = 0; i < n; i++) {
                p[i] += 0.5 * step * g[i];
                q[i] += step * p[i];
            }
            code = f(q, &proposed, g, workspace);
            for (int i = 0; i < n; i++) p[i] += 0.5 * step * g[i];
        }
        if (code) break;
        for (int i = 0; i < n; i++) kinetic_after += 0.5 * p[i] * p[i];
        if (log(uniform(&state)) < (proposed - kinetic_after) - (value - kinetic)) {
            memcpy(x, q, bytes);
            memcpy(gx, g, bytes);
            value = proposed;
            accepted++;
        }
        memcpy(samples + (size_t)s * (size_t)n, x, bytes);
    }
    free(memory);
    return code ? -1 - code : accepted;
}
