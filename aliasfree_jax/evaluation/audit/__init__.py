"""Audit of a network: the equivariance error of every layer of any Flax module, and what breaks first.

`audit` measures, `report` shows, `python -m aliasfree_jax audit` does both.
"""

from aliasfree_jax.evaluation.audit.auditing import Audit, LayerError, audit
from aliasfree_jax.evaluation.audit.report import draw_audits, format_markdown, format_table, to_json

__all__ = ["Audit", "LayerError", "audit", "draw_audits", "format_markdown", "format_table", "to_json"]
