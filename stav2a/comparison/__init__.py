"""Rows of an ablation compared: statistics, tables, and a page to see and hear them side by side."""

from stav2a.comparison.comparing import compare
from stav2a.comparison.errors import ComparisonError
from stav2a.comparison.results import Cell, Comparison, Difference, Metric
from stav2a.comparison.rows import Row
from stav2a.comparison.statistics import Estimate

__all__ = ["Cell", "Comparison", "ComparisonError", "Difference", "Estimate", "Metric", "Row", "compare"]
