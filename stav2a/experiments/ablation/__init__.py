"""Ablation studies: rows of recipes, trained over seeds, and compared.

`study` reads a study file, `planning` says what there is to do, `runner` does it in child processes (`pool`,
`cluster`), and `records` reads what they left in the tracking store for `stav2a.evaluation.comparison`.
"""
