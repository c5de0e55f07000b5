"""Audits a function of images: the equivariance error of every operation, and the first that breaks.

`audit` measures, `report` writes tables and pictures, and `python -m aliasfree_jax audit` does both.
"""

from aliasfree_jax.evaluation.audit.auditing import Audit, Audits, LayerError, audit
from aliasfree_jax.evaluation.audit.report import draw_audits, format_markdown, to_json

__all__ = [
    "Audit",
    "Audits",
    "LayerError",
    "audit",
    "draw_audits",
    "format_markdown",
    "to_json",
]
