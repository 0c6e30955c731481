"""Least squares with coefficients that are not negative. Loads no torch."""

from __future__ import annotations

import numpy as np


def nonnegative_least_squares(matrix: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The x >= 0 with the least |matrix @ x - wanted|, by the active-set method of Lawson and Hanson (1974, ch. 23).

    Args:
        matrix: (points, unknowns).
        wanted: (points,).
    """
    unknowns = matrix.shape[1]
    solution, free = np.zeros(unknowns), np.zeros(unknowns, dtype=bool)
    for _ in range(10 * unknowns):
        gradient = matrix.T @ (wanted - matrix @ solution)
        gradient[free] = -np.inf
        if free.all() or gradient.max() <= 1e-10 * max(1.0, float(np.abs(matrix.T @ wanted).max())):
            break
        free[int(np.argmax(gradient))] = True
        while free.any():
            trial = np.zeros(unknowns)
            trial[free] = np.linalg.lstsq(matrix[:, free], wanted, rcond=None)[0]
            negative = free & (trial <= 0)
            if not negative.any():
                solution = trial
                break
            # As far towards the trial as nothing turns negative; what reaches 0 there is bound again
            steps = solution[negative] / (solution[negative] - trial[negative])
            solution = solution + float(steps.min()) * (trial - solution)
            bound = np.flatnonzero(negative)[steps <= steps.min()]
            free[bound] = False
            solution[~free] = 0.0
    return solution
