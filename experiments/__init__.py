"""The papers' claims on CIFAR-10: which networks are trained and measured how, and the page that tells.

`python -m experiments` trains and measures what is missing, `python -m experiments --page` makes
docs/experiments.md from the stored results. Needs the repository: it is no part of the installed package.
"""
