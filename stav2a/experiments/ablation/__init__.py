"""Ablation studies: rows of recipes, trained over seeds and compared.

`study` reads a study file, `planning` lists its runs, `runner` starts them in processes of their own
(`launch`), and `study_report` compares what they left in the tracking store.
"""
