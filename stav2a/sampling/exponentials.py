"""The loops of `blocks`, compiled by numba: PyTorch's softmax takes twice as long in bfloat16.

Types are written out wherever numba would take a wider one, whose loops would not be vectorised.
"""

from typing import Any

import numba
import numpy as np
from numpy import float32, int16, int32, uint16, uint32

LOG2_E, HALF, SMALLEST = float32(np.log2(np.e)), float32(0.5), float32(-126)
BIAS, MANTISSA = int32(127), int32(23)  # of float32's exponent
# 2^x on [-1/2, 1/2], by interpolation in Chebyshev's points: within 2e-4, a twentieth of bfloat16's rounding.
_POINTS = np.cos(np.pi * (np.arange(4) + 0.5) / 4) / 2
P3, P2, P1, P0 = (float32(each) for each in np.polyfit(_POINTS, 2**_POINTS, 3))


@numba.njit(fastmath=True, nogil=True, error_model="numpy")
def exponentiate_rows(scores: Any, totals: Any) -> None:
    """Write exp(score - its row's highest) over scores, and the rows' sums over totals.

    Shapes:
        scores (N, L), the bits of bfloat16; totals (N,) float32
    """
    for n in range(scores.shape[0]):
        row = scores[n]
        highest = int16(-32768)
        for i in range(row.size):
            highest = max(highest, _ordered(int16(row[i])))
        top, total = _wide(uint16(_ordered(highest))), float32(0)
        for i in range(row.size):
            weight = _exp2(float32(float32(_wide(row[i]) - top) * LOG2_E))
            total += weight
            row[i] = uint16(uint32(weight.view(uint32) + uint32(0x8000)) >> uint32(16))
        totals[n] = total


@numba.njit(inline="always")
def _ordered(bits: Any) -> Any:
    """The bits of a bfloat16 as an integer that is larger where the number is; and back."""
    return int16(bits ^ int16(int16(bits >> int16(15)) & int16(0x7FFF)))


@numba.njit(inline="always")
def _wide(bits: Any) -> Any:
    """A bfloat16's bits -> float32."""
    return uint32(uint32(bits) << uint32(16)).view(float32)


@numba.njit(fastmath=True, inline="always")
def _exp2(x: Any) -> Any:
    """2^x of x <= 0: a polynomial, and the exponent put together from its bits."""
    x = max(x, SMALLEST)
    whole = int32(x - HALF)
    x = float32(x - float32(whole))
    power = int32(int32(whole + BIAS) << MANTISSA).view(float32)
    return float32((((P3 * x + P2) * x + P1) * x + P0) * power)
