"""What a recipe's model costs, and what this machine lacks for it: told without running anything."""

from stav2a.audit.counting import Audit, Block, Training, audit
from stav2a.audit.missing import Missing, missing_data, missing_lines, missing_weights
from stav2a.audit.skeleton import TextStandIn, skeleton
from stav2a.audit.table import table

__all__ = [
    "Audit", "Block", "Missing", "TextStandIn", "Training", "audit", "missing_data", "missing_lines",
    "missing_weights", "skeleton", "table",
]  # fmt: skip
