"""The loops of `narrow`, compiled by numba for one width of heads.

How they are written decides whether the compiler works on sixteen queries at once: constant counts, local
arrays of constant length, and `at` for places that it can't see to be positive.
"""

from typing import Any

import numba
import numpy as np

from stav2a.sampling.narrow import QUERIES

R, J = QUERIES, 64  # queries and keys of a block
ZERO, ONE, HALF, LOWEST = np.float32(0), np.float32(1), np.float32(0.5), np.float32(-1e30)
LOG2_E = np.log2(np.e)
SMALLEST, BIAS, MANTISSA = np.float32(-126), np.int32(127), np.int32(23)  # of float32's exponent
# 2^x on [-½, ½], by interpolation in Chebyshev's points: within 1e-7.
P0, P1, P2, P3, P4, P5 = (
    np.float32(c) for c in (1.00000008, 0.693147188, 0.240221075, 0.0555035711, 0.00967603192, 0.00133908634)
)
at = np.uintp


@numba.njit(fastmath=True, inline="always")
def _exp2(x):
    """2^x of x <= 0: a polynomial, and the exponent put together from its bits."""
    x = max(x, SMALLEST)
    whole = np.int32(x - HALF)
    x = x - np.float32(whole)
    fraction = ((((P5 * x + P4) * x + P3) * x + P2) * x + P1) * x + P0
    return fraction * np.int32((whole + BIAS) << MANTISSA).view(np.float32)


@numba.njit(inline="always")
def _room(length):
    """An array that begins where a cache line does: reading across two of them took a third longer."""
    room = np.empty(length + 16, np.float32)
    start = (-room.ctypes.data % 64) // 4
    return room[start : start + length]


def kernel(dim: int) -> Any:
    """Softmax attention for heads of `dim` channels.

    Shapes:
        q, k, v (N, L, D) float32, L a multiple of 128; the result is written over the fourth, (N, L, D)
    """
    scale = np.float32(LOG2_E / np.sqrt(dim))

    @numba.njit(fastmath=True, nogil=True, error_model="numpy")
    def attend(q, k, v, out):
        query, scores, sums = _room(dim * R), _room(J * R), _room(dim * R)
        top, total, shrink = _room(R), _room(R), _room(R)
        for n in range(q.shape[0]):
            keys, values = k[n].reshape(-1), v[n].reshape(-1)
            for first in range(0, q.shape[1], R):
                for r in range(R):
                    for d in range(dim):
                        query[d * R + r] = q[n, first + r, d] * scale
                top[:], total[:], sums[:] = LOWEST, ZERO, ZERO
                for block in range(0, q.shape[1], J):
                    for j in range(0, J, 4):
                        place = (block + j) * dim
                        for r in range(R):
                            s0, s1, s2, s3 = ZERO, ZERO, ZERO, ZERO
                            for d in range(dim):
                                x = query[at(d * R + r)]
                                s0 += keys[at(place + d)] * x
                                s1 += keys[at(place + dim + d)] * x
                                s2 += keys[at(place + 2 * dim + d)] * x
                                s3 += keys[at(place + 3 * dim + d)] * x
                            scores[at(j * R + r)], scores[at(j * R + R + r)] = s0, s1
                            scores[at(j * R + 2 * R + r)], scores[at(j * R + 3 * R + r)] = s2, s3
                    for r in range(R):
                        shrink[r] = top[r]
                    for j in range(0, J, 8):
                        for r in range(R):
                            highest = top[r]
                            for i in range(8):
                                highest = max(highest, scores[at((j + i) * R + r)])
                            top[r] = highest
                    for r in range(R):
                        shrink[r] = _exp2(shrink[r] - top[r])
                    for r in range(R):
                        total[r] *= shrink[r]
                    for d in range(dim):
                        for r in range(R):
                            sums[at(d * R + r)] *= shrink[r]
                    for j in range(J):
                        for r in range(R):
                            weight = _exp2(scores[at(j * R + r)] - top[r])
                            scores[at(j * R + r)] = weight
                            total[r] += weight
                    for j in range(0, J, 16):
                        for d in range(0, dim, 4):
                            for r in range(R):
                                a0, a1 = sums[at(d * R + r)], sums[at(d * R + R + r)]
                                a2, a3 = sums[at(d * R + 2 * R + r)], sums[at(d * R + 3 * R + r)]
                                for i in range(16):
                                    weight, place = scores[at((j + i) * R + r)], (block + j + i) * dim + d
                                    a0 += values[at(place)] * weight
                                    a1 += values[at(place + 1)] * weight
                                    a2 += values[at(place + 2)] * weight
                                    a3 += values[at(place + 3)] * weight
                                sums[at(d * R + r)], sums[at(d * R + R + r)] = a0, a1
                                sums[at(d * R + 2 * R + r)], sums[at(d * R + 3 * R + r)] = a2, a3
                for r in range(R):
                    shrink[r] = ONE / total[r]
                for r in range(R):
                    for d in range(dim):
                        out[n, first + r, d] = sums[d * R + r] * shrink[r]

    return attend
