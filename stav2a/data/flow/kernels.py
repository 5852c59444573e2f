"""The inner loops of the sparse Farneback flow, compiled by numba when they are first called.

Compiled code is kept beside this file, or in the user's cache. Each picture is a quadratic around every
pixel, f(p + d) = c + b'd + d'Ad; it is held as five planes: b_x, b_y, A_xx, A_yy, 2 A_xy.
"""

import numba
import numpy as np

HALF, ONE, ZERO = np.float32(0.5), np.float32(1), np.float32(0)
INSIDE = np.float32(1e-3)  # how far a sample stays from the last row and column
REGULAR = np.float32(1e-3)  # keeps the determinant of a flat window from 0
compiled = numba.njit(fastmath=True, nogil=True, cache=True)


@compiled
def expand(picture, taps, inverse, out):
    """Fit a quadratic around every pixel, by separable filters.

    Shapes:
        picture (H + 2n, W + 2n) float32, taps (3, n + 1): the weights times 1, x and x², out (5, H, W)
    """
    n = taps.shape[1] - 1
    height, width = out.shape[1], out.shape[2]
    g, xg, xxg = taps[0], taps[1], taps[2]
    rows = np.empty((3, width + 2 * n), np.float32)
    sums = np.empty((6, width), np.float32)
    f, fy, fyy = rows[0], rows[1], rows[2]
    m, mx, mxx, my, mxy, myy = sums[0], sums[1], sums[2], sums[3], sums[4], sums[5]
    for y in range(height):
        line = picture[y + n]
        for x in range(width + 2 * n):
            f[x] = g[0] * line[x]
            fy[x] = fyy[x] = ZERO
        for k in range(1, n + 1):
            above, below = picture[y + n - k], picture[y + n + k]
            for x in range(width + 2 * n):
                both = below[x] + above[x]
                f[x] += g[k] * both
                fyy[x] += xxg[k] * both
                fy[x] += xg[k] * (below[x] - above[x])
        inner_f, inner_fy, inner_fyy = f[n:], fy[n:], fyy[n:]
        for x in range(width):
            m[x], my[x], myy[x] = g[0] * inner_f[x], g[0] * inner_fy[x], g[0] * inner_fyy[x]
            mx[x] = mxx[x] = mxy[x] = ZERO
        for k in range(1, n + 1):
            right_f, right_fy, right_fyy = f[n + k :], fy[n + k :], fyy[n + k :]
            left_f, left_fy, left_fyy = f[n - k :], fy[n - k :], fyy[n - k :]
            for x in range(width):
                m[x] += g[k] * (right_f[x] + left_f[x])
                mx[x] += xg[k] * (right_f[x] - left_f[x])
                mxx[x] += xxg[k] * (right_f[x] + left_f[x])
                my[x] += g[k] * (right_fy[x] + left_fy[x])
                mxy[x] += xg[k] * (right_fy[x] - left_fy[x])
                myy[x] += g[k] * (right_fyy[x] + left_fyy[x])
        for x in range(width):
            out[0, y, x] = mx[x] * inverse[0]
            out[1, y, x] = my[x] * inverse[0]
            out[2, y, x] = m[x] * inverse[1] + mxx[x] * inverse[2] + myy[x] * inverse[3]
            out[3, y, x] = m[x] * inverse[1] + myy[x] * inverse[2] + mxx[x] * inverse[3]
            out[4, y, x] = mxy[x] * inverse[4]


@compiled
def tensors(first, second, flow, step, edge_y, edge_x, out):
    """At every point of the grid: A'A and A'Δb, of the pictures before and after a first guess of the flow.

    A point that the guess moves out of the picture counts as one where nothing changed.

    Shapes:
        first, second (5, H, W); flow, the guess (2, h, w); edge_y (h,), edge_x (w,); out (h, 5, w + 2n), n a
        margin for `solve`
    """
    height, width = second.shape[1], second.shape[2]
    plane, row, one = np.uintp(height * width), np.uintp(width), np.uintp(1)  # unsigned: no wrap-around
    before, after = first.reshape(-1), second.reshape(-1)
    last_x, last_y = np.float32(width - 1), np.float32(height - 1)
    points = flow.shape[2]
    margin = (out.shape[2] - points) // 2
    places = np.empty(points, np.int32)
    weights = np.empty((5, points), np.float32)
    w00, w01, w10, w11, alone = weights[0], weights[1], weights[2], weights[3], weights[4]
    for i in range(flow.shape[1]):
        u, v = flow[0, i], flow[1, i]
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
            places[j] = y0 * width + x0
        inner = out[i, :, margin:]
        xx, xy, yy, hx, hy = inner[0], inner[1], inner[2], inner[3], inner[4]
        for j in range(points):
            p, q = np.uintp(y * width + j * step + step // 2), np.uintp(places[j])
            a, b, c, d = w00[j], w01[j], w10[j], w11[j]
            bx = HALF * (before[p] - _at(after, q, one, row, a, b, c, d))
            p, q = p + plane, q + plane
            by = HALF * (before[p] - _at(after, q, one, row, a, b, c, d))
            p, q = p + plane, q + plane
            axx = alone[j] * before[p] + HALF * _at(after, q, one, row, a, b, c, d)
            p, q = p + plane, q + plane
            ayy = alone[j] * before[p] + HALF * _at(after, q, one, row, a, b, c, d)
            p, q = p + plane, q + plane
            axy = HALF * (alone[j] * before[p] + HALF * _at(after, q, one, row, a, b, c, d))
            bx += axx * u[j] + axy * v[j]
            by += axy * u[j] + ayy * v[j]
            trust = (edge_y[i] * edge_x[j]) ** 2
            xx[j] = trust * (axx * axx + axy * axy)
            xy[j] = trust * (axx + ayy) * axy
            yy[j] = trust * (ayy * ayy + axy * axy)
            hx[j] = trust * (axx * bx + axy * by)
            hy[j] = trust * (axy * bx + ayy * by)
        for c in range(5):  # the margins repeat the outermost points
            out[i, c, :margin], out[i, c, margin + points :] = (
                out[i, c, margin],
                out[i, c, margin + points - 1],
            )


@numba.njit(fastmath=True, inline="always")
def _at(plane, q, one, row, a, b, c, d):
    return a * plane[q] + b * plane[q + one] + c * plane[q + row] + d * plane[q + row + one]


@compiled
def solve(tensors, taps, flow):
    """The flow that fits the tensors of a window best.

    All planes of a row lie behind one another, each with its margins, so that one loop serves them all.

    Shapes:
        tensors (h, 5, w + 2n), taps (n + 1,): the window's weights, flow (2, h, w) is overwritten
    """
    n, height, width = taps.shape[0] - 1, flow.shape[1], flow.shape[2]
    rows = tensors.reshape(height, -1)
    line, means = np.empty(rows.shape[1], np.float32), np.zeros((5, width + 2 * n), np.float32)
    mean, length = means.reshape(-1), rows.shape[1] - 2 * n
    for i in range(height):
        middle = rows[i]
        for j in range(line.shape[0]):
            line[j] = taps[0] * middle[j]
        for k in range(1, n + 1):
            above, below = rows[max(i - k, 0)], rows[min(i + k, height - 1)]
            for j in range(line.shape[0]):
                line[j] += taps[k] * (above[j] + below[j])
        centre = line[n:]
        for j in range(length):
            mean[j] = taps[0] * centre[j]
        for k in range(1, n + 1):
            left, right = line[n - k :], line[n + k :]
            for j in range(length):
                mean[j] += taps[k] * (left[j] + right[j])
        for j in range(width):
            xx, xy, yy, hx, hy = means[0, j], means[1, j], means[2, j], means[3, j], means[4, j]
            scale = ONE / (xx * yy - xy * xy + REGULAR)
            flow[0, i, j] = (yy * hx - xy * hy) * scale
            flow[1, i, j] = (xx * hy - xy * hx) * scale


@compiled
def refine(first, second, flow, step, edge_y, edge_x, taps, iterations):
    """Improve a guess of the flow, (2, h, w), in place; the rest as in `tensors` and `solve`."""
    found = np.empty((flow.shape[1], 5, flow.shape[2] + 2 * (taps.shape[0] - 1)), np.float32)
    for _ in range(iterations):
        tensors(first, second, flow, step, edge_y, edge_x, found)
        solve(found, taps, flow)
