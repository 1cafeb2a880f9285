"""A published study of eight tasks, as printed: distance between them, and epochs of fine-tuning from one to the other.

Figure 1 of Achille et al. 2019, https://arxiv.org/abs/1904.03292, and its extended version. Rows are targets, columns
sources; NaN was not run, or did not converge.
"""

from __future__ import annotations

import numpy as np

TASKS = ("cifar10", "mnist", "fashion", "ifashion", "letters", "cifar100", "natural", "artificial")
NONE = float("nan")

DISTANCE = np.array(
    [
        [0.00, 0.29, 0.31, 0.28, 0.10, 0.01, -0.08, -0.19],
        [0.15, 0.00, 0.20, 0.15, 0.04, -0.01, -0.06, -0.01],
        [0.21, 0.25, 0.00, 0.07, 0.12, 0.06, -0.03, -0.04],
        [0.24, 0.25, 0.12, 0.00, 0.10, 0.07, 0.02, 0.01],
        [0.61, 0.68, 0.72, 0.64, 0.00, 0.41, 0.32, 0.33],
        [0.52, 0.64, 0.67, 0.62, 0.42, 0.00, 0.12, 0.07],
        [0.41, 0.57, 0.55, 0.54, 0.30, 0.10, 0.00, -0.14],
        [0.25, 0.58, 0.49, 0.50, 0.27, 0.00, -0.18, 0.00],
    ]
)

EPOCHS = np.array(
    [
        [NONE, 32.85, 30.12, 27.30, 28.84, 17.23, 19.24, 25.78],
        [0.57, NONE, 0.70, 0.75, 0.32, 0.48, 0.57, 0.76],
        [18.75, 33.72, NONE, 11.51, 26.33, 18.75, 21.75, 24.87],
        [19.35, 35.38, 17.72, NONE, 29.38, 18.73, 21.47, 25.41],
        [55.80, NONE, 79.72, 78.43, NONE, 53.43, 58.24, 74.87],
        [42.29, 54.99, 61.52, 51.92, 48.85, NONE, 24.84, 39.86],
        [27.60, 36.85, 36.68, 34.41, 31.22, 12.74, NONE, 27.17],
        [14.60, 21.20, 20.03, 19.06, 17.75, 7.57, 11.28, NONE],
    ]
)

# What one expects near each task: pictures of objects among themselves, clothes beside clothes, and grey beside grey.
KIN = ({5, 6, 7}, {2, 3, 4}, {3}, {2}, {1, 2, 3}, {0, 6, 7}, {0, 5, 7}, {0, 5, 6})
