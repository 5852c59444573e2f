"""STA-V2A: semantically and temporally aligned sound for silent video, with every part swappable by recipe.

Importing the package imports nothing heavy; `stav2a --help` lists what can be done from a shell.
"""

__version__ = "0.1.0"
