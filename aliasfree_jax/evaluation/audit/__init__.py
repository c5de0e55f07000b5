"""Audit of a network: the equivariance error of every layer of any Flax module, and what breaks first.

`audit` measures, `report` and `picture` show, `python -m aliasfree_jax.evaluation.audit` does all three.
"""

from aliasfree_jax.evaluation.audit.auditing import Audit, LayerError, audit
from aliasfree_jax.evaluation.audit.picture import draw_audits
from aliasfree_jax.evaluation.audit.report import format_markdown, format_table, to_json

__all__ = ["Audit", "LayerError", "audit", "draw_audits", "format_markdown", "format_table", "to_json"]
