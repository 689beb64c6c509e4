"""Confidence intervals of proportions and estimates, paired tests, and confidence sequences.

Functions take counts and plain samples, not models. ``scipy`` is imported inside the functions that
need it, so that reading or rendering a report does not import it.
"""

from __future__ import annotations

from robaudit.statistics.calibration import (
    CalibrationError,
    brier_scores,
    calibration_error,
    equal_width_ece,
)
from robaudit.statistics.clusters import (
    clustered_accuracy,
    clustered_difference,
    clustered_mean,
    clustered_paired,
    effective_size,
)
from robaudit.statistics.intervals import (
    clopper_pearson,
    degrees_of,
    from_standard_error,
    newcombe,
    normal_interval,
    standard_error_of_proportion,
    t_interval,
    wilson,
)
from robaudit.statistics.means import Mean, mean, ratio_of_means
from robaudit.statistics.paired import Paired, paired
from robaudit.statistics.parts import Part, least, parts_of
from robaudit.statistics.quantiles import median_interval, quantile_interval
from robaudit.statistics.sequences import (
    Counts,
    Stratum,
    population_counts,
    settled,
    stratified_counts,
)

__all__ = [
    "CalibrationError",
    "Counts",
    "Mean",
    "Paired",
    "Part",
    "Stratum",
    "brier_scores",
    "calibration_error",
    "clopper_pearson",
    "clustered_accuracy",
    "clustered_difference",
    "clustered_mean",
    "clustered_paired",
    "degrees_of",
    "effective_size",
    "equal_width_ece",
    "from_standard_error",
    "least",
    "mean",
    "median_interval",
    "newcombe",
    "normal_interval",
    "paired",
    "parts_of",
    "population_counts",
    "quantile_interval",
    "ratio_of_means",
    "settled",
    "standard_error_of_proportion",
    "stratified_counts",
    "t_interval",
    "wilson",
]
