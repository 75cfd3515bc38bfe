/* Floating point: SSE2 in vectors and scalars, the x87 unit, AVX2. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "xbench.h"

static uint64_t bits_of(double d)
{
    uint64_t bits;

    memcpy(&bits, &d, sizeof(bits));
    return bits;
}

/* Between -1 and 1, and exact. */
static double real_random(uint32_t *seed)
{
    return ((double)(next_random(seed) >> 8) - 8388608.0) / 8388608.0;
}

/* ---- matrices of doubles, two at a time ---- */

#define MATSSE 96

static double (*matsse_a)[MATSSE], (*matsse_b)[MATSSE], (*matsse_c)[MATSSE];

void matsse_setup(void)
{
    uint32_t seed = 11;

    matsse_a = need_memory(sizeof(double[MATSSE][MATSSE]));
    matsse_b = need_memory(sizeof(double[MATSSE][MATSSE]));
    matsse_c = need_memory(sizeof(double[MATSSE][MATSSE]));
    for (unsigned i = 0; i < MATSSE; i++) {
        for (unsigned j = 0; j < MATSSE; j++) {
            matsse_a[i][j] = real_random(&seed);
            matsse_b[i][j] = real_random(&seed);
        }
    }
}

uint64_t matsse_round(void)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < MATSSE; i++) {
        for (unsigned j = 0; j < MATSSE; j += 4) {
            __m128d c0 = _mm_setzero_pd(), c1 = _mm_setzero_pd();

            for (unsigned k = 0; k < MATSSE; k++) {
                __m128d a = _mm_set1_pd(matsse_a[i][k]);

                c0 = _mm_add_pd(c0, _mm_mul_pd(a, _mm_load_pd(&matsse_b[k][j])));
                c1 = _mm_add_pd(c1, _mm_mul_pd(a, _mm_load_pd(&matsse_b[k][j + 2])));
            }
            _mm_store_pd(&matsse_c[i][j], c0);
            _mm_store_pd(&matsse_c[i][j + 2], c1);
        }
    }
    for (unsigned i = 0; i < MATSSE; i++)
        sum = mix(sum, bits_of(matsse_c[i][(i * 7) % MATSSE]));
    return sum;
}

/* ---- the sun and four planets, after the well-known program ---- */

#define BODIES 5
#define PI 3.141592653589793
#define SOLAR_MASS (4 * PI * PI)
#define DAYS 365.24

struct body {
    double x[3], v[3], mass;
};

static const struct body solar_system[BODIES] = {
    {{0, 0, 0}, {0, 0, 0}, SOLAR_MASS},
    {{4.84143144246472090e+00, -1.16032004402742839e+00, -1.03622044471123109e-01},
     {1.66007664274403694e-03 * DAYS, 7.69901118419740425e-03 * DAYS,
      -6.90460016972063023e-05 * DAYS},
     9.54791938424326609e-04 * SOLAR_MASS},
    {{8.34336671824457987e+00, 4.12479856412430479e+00, -4.03523417114321381e-01},
     {-2.76742510726411021e-03 * DAYS, 4.99852801234917238e-03 * DAYS,
      2.30417297573763929e-05 * DAYS},
     2.85885980666130812e-04 * SOLAR_MASS},
    {{1.28943695621391310e+01, -1.51111514016986312e+01, -2.23307578892655734e-01},
     {2.96460137564761618e-03 * DAYS, 2.37847173959480950e-03 * DAYS,
      -2.96589568540237556e-05 * DAYS},
     4.36624404335156298e-05 * SOLAR_MASS},
    {{1.53796971148509165e+01, -2.59193146099879641e+01, 1.79258772950371181e-01},
     {2.68067772490389322e-03 * DAYS, 1.62824170038242295e-03 * DAYS,
      -9.51592254519715870e-05 * DAYS},
     5.15138902046611451e-05 * SOLAR_MASS},
};

static void advance(struct body *body, double dt)
{
    for (unsigned i = 0; i < BODIES; i++) {
        for (unsigned j = i + 1; j < BODIES; j++) {
            double d[3], square = 0, magnitude;

            for (unsigned k = 0; k < 3; k++) {
                d[k] = body[i].x[k] - body[j].x[k];
                square += d[k] * d[k];
            }
            magnitude = dt / (square * sqrt(square));
            for (unsigned k = 0; k < 3; k++) {
                body[i].v[k] -= d[k] * body[j].mass * magnitude;
                body[j].v[k] += d[k] * body[i].mass * magnitude;
            }
        }
    }
    for (unsigned i = 0; i < BODIES; i++) {
        for (unsigned k = 0; k < 3; k++)
            body[i].x[k] += dt * body[i].v[k];
    }
}

uint64_t nbody_round(void)
{
    struct body body[BODIES];
    uint64_t sum = 0;

    memcpy(body, solar_system, sizeof(body));
    KEEP(body);
    for (unsigned i = 0; i < 10000; i++)
        advance(body, 0.01);
    for (unsigned i = 0; i < BODIES; i++)
        sum = mix(sum, bits_of(body[i].x[0] + body[i].x[1] * body[i].v[2]));
    return sum;
}

/* ---- x87: Newton's roots, a continued fraction, a polynomial, a series. No sine: of that the
 * manual promises no last bit. ---- */

uint64_t x87_round(void)
{
    long double sum = 0, term = 1, series = 0;
    uint64_t bits;

    for (unsigned i = 1; i <= 8000; i++) {
        long double x = (long double)i, r = x, fraction = 1, poly = 0;

        KEEP(&x);
        for (unsigned k = 0; k < 4; k++)
            r = (r + x / r) * 0.5L;
        for (unsigned k = 8; k > 0; k--) {
            fraction = (long double)k + x / fraction;
            poly = poly * (1 / x) + (long double)k;
        }
        term = -term * 0.9995L;
        series += term / x;
        sum += sqrtl(r * r + 1) + fraction - poly;
    }
    sum += series;
    memcpy(&bits, &sum, sizeof(bits)); /* the fraction, all of it */
    return bits;
}

/* ---- AVX2: half of it on integers, half on floats ---- */

#define AVX_WORDS 16384

static int32_t *avx_from, *avx_to;
static float *avx_float;

const char *avx2_unfit(void)
{
    return __builtin_cpu_supports("avx2") ? NULL : "the CPU has no AVX2";
}

void avx2_setup(void)
{
    uint32_t seed = 1234;

    avx_from = need_memory(AVX_WORDS * sizeof(*avx_from));
    avx_to = need_memory(AVX_WORDS * sizeof(*avx_to));
    avx_float = need_memory(AVX_WORDS * sizeof(*avx_float));
    for (unsigned i = 0; i < AVX_WORDS; i++) {
        avx_from[i] = (int32_t)next_random(&seed);
        avx_float[i] = (float)real_random(&seed);
    }
}

__attribute__((target("avx2"))) static void avx_integers(void)
{
    const __m256i swap = _mm256_setr_epi8(3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12, 3,
                                          2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12);
    const __m256i turn = _mm256_setr_epi32(1, 2, 3, 4, 5, 6, 7, 0);
    __m256i carry = _mm256_setzero_si256();

    for (unsigned i = 0; i < AVX_WORDS; i += 8) {
        __m256i v = _mm256_loadu_si256((const __m256i_u *)(avx_from + i));
        __m256i s = _mm256_shuffle_epi8(v, swap);

        s = _mm256_xor_si256(_mm256_slli_epi32(s, 5), _mm256_srli_epi32(s, 11));
        carry = _mm256_add_epi32(_mm256_permutevar8x32_epi32(carry, turn), s);
        carry = _mm256_max_epi32(carry, _mm256_mullo_epi32(v, s));
        _mm256_storeu_si256((__m256i_u *)(avx_to + i), carry);
    }
}

__attribute__((target("avx2"))) static float avx_floats(void)
{
    __m256 a = _mm256_setzero_ps(), b = _mm256_set1_ps(0.5f);
    float lane[8], sum = 0;

    for (unsigned i = 0; i < AVX_WORDS; i += 8) {
        __m256 v = _mm256_loadu_ps(avx_float + i);

        a = _mm256_add_ps(_mm256_mul_ps(a, _mm256_set1_ps(0.75f)), v);
        b = _mm256_sub_ps(_mm256_mul_ps(b, v), _mm256_min_ps(a, v));
    }
    _mm256_storeu_ps(lane, _mm256_add_ps(a, b));
    for (unsigned i = 0; i < 8; i++)
        sum += lane[i];
    return sum;
}

uint64_t avx2_round(void)
{
    uint64_t sum = 0;

    for (unsigned pass = 0; pass < 8; pass++) {
        BARRIER();
        avx_integers();
        sum = mix(sum, bits_of((double)avx_floats()));
    }
    for (unsigned i = 0; i < AVX_WORDS; i += 64)
        sum = mix(sum, (uint32_t)avx_to[i]);
    return sum;
}

/* ---- single precision, with strides ---- */

#define STRIDE_FLOATS 65536

static float *stride_x, *stride_y;

void stride_setup(void)
{
    uint32_t seed = 77;

    stride_x = need_memory(STRIDE_FLOATS * sizeof(float));
    stride_y = need_memory(STRIDE_FLOATS * sizeof(float));
    for (unsigned i = 0; i < STRIDE_FLOATS; i++)
        stride_x[i] = (float)real_random(&seed);
}

uint64_t stride_round(void)
{
    uint64_t sum = 0;

    for (unsigned stride = 1; stride <= 64; stride *= 8) {
        float a = 1.0f / (float)(stride + 1), last = 0;

        for (unsigned start = 0; start < stride; start++) {
            for (unsigned i = start; i < STRIDE_FLOATS; i += stride) {
                last = last * 0.5f + stride_x[i] * a;
                stride_y[i] = last + 1.0f;
            }
        }
        BARRIER();
        for (unsigned i = 0; i < STRIDE_FLOATS; i += 1024)
            sum = mix(sum, bits_of((double)stride_y[i]));
    }
    return sum;
}
