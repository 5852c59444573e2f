"""The inner loops of the sparse Farneback flow, compiled by numba when they are first called.

Compiled code is kept beside this file, or in the user's cache. Each picture is a quadratic around every
pixel, f(p + d) = c + b'd + d'Ad, stored as five planes, row by row: b_x, b_y, A_xx, A_yy, 2 A_xy.

The loops are written for a compiler that works on many pixels at once: few results a loop, so that it can
prove that they do not overlap; constant counts of taps; `at` for indices that it can't prove to be positive.
"""

import numba
import numpy as np

ZERO, HALF, ONE, TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
INSIDE = np.float32(1e-3)  # least distance of a sample from the last row and column
REGULAR = np.float32(1e-3)  # keeps the determinant of a flat window above 0
REACH, SIGMA = 5, 1.2  # pixels to each side of a quadratic, and the deviation of their weights
compiled = numba.njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
at = np.uintp


def _quadratics() -> tuple[np.ndarray, ...]:
    """The filters' taps from the middle outwards, times 1, x and x²; and the entries of the inverse of their
    moments that are not zero: (b, b), (1, A), (A, A), (A_xx, A_yy) and (A_xy, A_xy)."""
    x = np.arange(-REACH, REACH + 1, dtype=np.float64)
    g = np.exp(-(x**2) / (2 * SIGMA**2))
    g /= g.sum()
    across, down = (each.ravel() for each in np.meshgrid(x, x))
    basis = np.stack([np.ones_like(across), across, down, across**2, down**2, across * down])
    inverse = np.linalg.inv((basis * np.outer(g, g).ravel()) @ basis.T)
    kept = np.array([inverse[each] for each in ((1, 1), (0, 3), (3, 3), (3, 4), (5, 5))])
    return *(each[REACH:].astype(np.float32) for each in (g, x * g, x**2 * g)), kept.astype(np.float32)


G, XG, XXG, INVERSE = _quadratics()


@compiled
def expand(picture, out):
    """Fit a quadratic around every pixel, by separable filters.

    Shapes:
        picture (H + 2 REACH, W + 2 REACH) float32, out (H, 5, W)
    """
    n, height, width = REACH, out.shape[0], out.shape[2]
    columns = np.empty((3, width + 2 * n), np.float32)
    f, fy, fyy = columns[0], columns[1], columns[2]
    for y in range(height):
        for x in range(width + 2 * n):
            s, sy, syy = G[0] * picture[y + n, x], ZERO, ZERO
            for k in range(1, REACH + 1):
                above, below = picture[y + n - k, x], picture[y + n + k, x]
                s += G[k] * (below + above)
                sy += XG[k] * (below - above)
                syy += XXG[k] * (below + above)
            f[x], fy[x], fyy[x] = s, sy, syy
        bx, by, axx, ayy, axy = out[y, 0], out[y, 1], out[y, 2], out[y, 3], out[y, 4]
        for x in range(width):
            m, mx, mxx = G[0] * f[x + n], ZERO, ZERO
            for k in range(1, REACH + 1):
                left, right = f[at(x + n - k)], f[at(x + n + k)]
                m += G[k] * (right + left)
                mx += XG[k] * (right - left)
                mxx += XXG[k] * (right + left)
            bx[x] = mx * INVERSE[0]
            axx[x] = m * INVERSE[1] + mxx * INVERSE[2]
            ayy[x] = m * INVERSE[1] + mxx * INVERSE[3]
        for x in range(width):
            my, mxy = G[0] * fy[x + n], ZERO
            for k in range(1, REACH + 1):
                left, right = fy[at(x + n - k)], fy[at(x + n + k)]
                my += G[k] * (right + left)
                mxy += XG[k] * (right - left)
            by[x] = my * INVERSE[0]
            axy[x] = mxy * INVERSE[4]
        for x in range(width):
            myy = G[0] * fyy[x + n]
            for k in range(1, REACH + 1):
                myy += G[k] * (fyy[at(x + n - k)] + fyy[at(x + n + k)])
            axx[x] += myy * INVERSE[3]
            ayy[x] += myy * INVERSE[2]


@compiled
def double(coarse, down, across, flow):
    """The first guess of a level: the flow of the next coarser one, twice as long, between its points.

    Shapes:
        coarse (2, h', w'); down (2, h), across (2, w): for every point the number of the coarser one before
        it, and the part of the way from there to the next; flow (2, h, w) is overwritten
    """
    last, width = coarse.shape[1] - 1, coarse.shape[2]
    line = np.empty(width + 1, np.float32)
    for c in range(2):
        for i in range(flow.shape[1]):
            y = min(np.int32(down[0, i]), last)
            above, below = coarse[c, y], coarse[c, min(y + 1, last)]
            for j in range(width):
                line[j] = TWO * (above[j] + down[1, i] * (below[j] - above[j]))
            line[width] = line[width - 1]
            for j in range(flow.shape[2]):
                x = min(np.int32(across[0, j]), width - 1)
                left, right = line[at(x)], line[at(x + 1)]
                flow[c, i, j] = left + across[1, j] * (right - left)


@compiled
def sample(second, flow, step, trust_y, trust_x, i, weights, places, sampled):
    """Row i of the second picture's quadratics, at the points to which a first guess of the flow leads.

    A point that the guess moves out of the picture counts as unchanged: its sample has weight 0, and `alone`,
    the weight of the first picture's quadratics, is 1 instead of ½.

    Shapes:
        second (H, 5, W), flow (2, h, w), trust_y (h,), trust_x (w,), weights (6, w): `alone`, the trust in
        each point and four for the corners, places (w,), sampled (5, w)
    """
    height, width = second.shape[0], second.shape[2]
    plane, row, one, two, three, four = at(width), at(5 * width), at(1), at(2), at(3), at(4)
    after = second.reshape(-1)
    last_x, last_y = np.float32(width - 1), np.float32(height - 1)
    points = flow.shape[2]
    u, v = flow[0, i], flow[1, i]
    alone, trust, w00, w01, w10, w11 = weights[0], weights[1], weights[2], weights[3], weights[4], weights[5]
    y = i * step + step // 2
    for j in range(points):
        fx, fy = np.float32(j * step + step // 2) + u[j], np.float32(y) + v[j]
        inside = np.float32((fx >= ZERO) & (fx < last_x) & (fy >= ZERO) & (fy < last_y))
        fx, fy = min(max(fx, ZERO), last_x - INSIDE), min(max(fy, ZERO), last_y - INSIDE)
        x0, y0 = np.int32(fx), np.int32(fy)
        fx, fy = (fx - np.float32(x0)) * inside, (fy - np.float32(y0)) * inside
        w11[j] = fx * fy
        w01[j], w10[j], w00[j] = fx - w11[j], fy - w11[j], inside - fx - fy + w11[j]
        alone[j] = ONE - HALF * inside
        places[j] = 5 * y0 * width + x0
    for j in range(points):
        trust[j] = (trust_y[i] * trust_x[j]) ** 2
    s0, s1, s2, s3, s4 = sampled[0], sampled[1], sampled[2], sampled[3], sampled[4]
    for j in range(points):
        a, b, c, d, q = w00[j], w01[j], w10[j], w11[j], at(places[j])
        s0[j] = _between(after, q, one, row, a, b, c, d)
        s1[j] = _between(after, q + plane, one, row, a, b, c, d)
        s2[j] = _between(after, q + two * plane, one, row, a, b, c, d)
        s3[j] = _between(after, q + three * plane, one, row, a, b, c, d)
        s4[j] = _between(after, q + four * plane, one, row, a, b, c, d)


@numba.njit(fastmath=True, inline="always")
def _between(plane, q, one, row, a, b, c, d):
    return a * plane[q] + b * plane[q + one] + c * plane[q + row] + d * plane[q + row + one]


@compiled
def tensors(first, second, flow, step, trust_y, trust_x, out):
    """At every point of the grid: A'A and A'Δb, of the pictures before and after a first guess of the flow.

    Shapes:
        first (h, 5, w), at the points; second (H, 5, W); flow, the guess (2, h, w); trust_y (h,),
        trust_x (w,); out (h, 5, w + 2n), n a margin for `solve`
    """
    points = flow.shape[2]
    margin = (out.shape[2] - points) // 2
    places = np.empty(points, np.int32)
    weights, sampled = np.empty((6, points), np.float32), np.empty((5, points), np.float32)
    alone, trust = weights[0], weights[1]
    bx, by, axx, ayy, axy = sampled[0], sampled[1], sampled[2], sampled[3], sampled[4]
    for i in range(flow.shape[1]):
        sample(second, flow, step, trust_y, trust_x, i, weights, places, sampled)
        u, v = flow[0, i], flow[1, i]
        for j in range(points):
            axx[j] = alone[j] * first[i, 2, j] + HALF * axx[j]
        for j in range(points):
            ayy[j] = alone[j] * first[i, 3, j] + HALF * ayy[j]
        for j in range(points):
            axy[j] = HALF * (alone[j] * first[i, 4, j] + HALF * axy[j])
        for j in range(points):
            bx[j] = HALF * (first[i, 0, j] - bx[j]) + axx[j] * u[j] + axy[j] * v[j]
        for j in range(points):
            by[j] = HALF * (first[i, 1, j] - by[j]) + axy[j] * u[j] + ayy[j] * v[j]
        for j in range(points):
            out[i, 0, at(margin + j)] = trust[j] * (axx[j] * axx[j] + axy[j] * axy[j])
        for j in range(points):
            out[i, 1, at(margin + j)] = trust[j] * (axx[j] + ayy[j]) * axy[j]
        for j in range(points):
            out[i, 2, at(margin + j)] = trust[j] * (ayy[j] * ayy[j] + axy[j] * axy[j])
        for j in range(points):
            out[i, 3, at(margin + j)] = trust[j] * (axx[j] * bx[j] + axy[j] * by[j])
        for j in range(points):
            out[i, 4, at(margin + j)] = trust[j] * (axy[j] * bx[j] + ayy[j] * by[j])
        for c in range(5):  # the margins repeat the outermost points
            out[i, c, :margin] = out[i, c, margin]
            out[i, c, margin + points :] = out[i, c, margin + points - 1]


@compiled
def solve(tensors, taps, flow):
    """The flow that fits the tensors of a window best.

    All planes of a row lie one after another, each with its margins, so that one loop serves them all.

    Shapes:
        tensors (h, 5, w + 2n), taps, a tuple of n + 1: the window's weights, flow (2, h, w) is overwritten
    """
    n, height, width = len(taps) - 1, flow.shape[1], flow.shape[2]
    rows = tensors.reshape(height, -1)
    line, means = np.empty(rows.shape[1], np.float32), np.zeros((5, width + 2 * n), np.float32)
    mean, length = means.reshape(-1), rows.shape[1] - 2 * n
    xx, xy, yy, hx, hy = means[0], means[1], means[2], means[3], means[4]
    for i in range(height):
        middle = rows[i]
        for j in range(line.shape[0]):
            line[j] = taps[0] * middle[j]
        for k in range(1, n + 1):
            above, below = rows[max(i - k, 0)], rows[min(i + k, height - 1)]
            for j in range(line.shape[0]):
                line[j] += taps[k] * (above[j] + below[j])
        for j in range(length):
            s = taps[0] * line[j + n]
            for k in range(1, n + 1):
                s += taps[k] * (line[at(j + n - k)] + line[at(j + n + k)])
            mean[j] = s
        u, v = flow[0, i], flow[1, i]
        for j in range(width):
            u[j] = (yy[j] * hx[j] - xy[j] * hy[j]) / (xx[j] * yy[j] - xy[j] * xy[j] + REGULAR)
        for j in range(width):
            v[j] = (xx[j] * hy[j] - xy[j] * hx[j]) / (xx[j] * yy[j] - xy[j] * xy[j] + REGULAR)


@compiled
def refine(first, second, flow, step, trust_y, trust_x, taps, found, iterations):
    """Improve a guess of the flow, (2, h, w), in place; the rest as in `tensors` and `solve`.

    Shapes:
        found (h, 5, w + 2n) is overwritten
    """
    for _ in range(iterations):
        tensors(first, second, flow, step, trust_y, trust_x, found)
        solve(found, taps, flow)
