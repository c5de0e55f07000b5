"""Experiments on CIFAR-10 that test the papers' claims: training, measuring, and pages of results.

`python -m experiments` trains and measures all missing runs. `python -m experiments --page` writes the pages
in docs/results from the stored results. It needs the repository and is not part of the installed package.
"""
