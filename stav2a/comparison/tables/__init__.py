"""A comparison written down: for a terminal, for GitHub, for a spreadsheet, for a paper."""

from stav2a.comparison.tables.latex_tables import latex
from stav2a.comparison.tables.long_table import csv
from stav2a.comparison.tables.markdown_tables import markdown
from stav2a.comparison.tables.text_tables import text

__all__ = ["csv", "latex", "markdown", "text"]
