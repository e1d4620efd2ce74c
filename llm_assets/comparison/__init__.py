"""What is different between two versions of a model: data, recipe, results, answers, card."""

from llm_assets.comparison.comparing import Comparison, Side, compare
from llm_assets.comparison.markdown import comparison_markdown
from llm_assets.comparison.rows import RowChanges, compare_rows
from llm_assets.comparison.sides import compare_versions, compared
from llm_assets.comparison.terminal import comparison_text

__all__ = [
    "Comparison",
    "RowChanges",
    "Side",
    "compare",
    "compare_rows",
    "compare_versions",
    "compared",
    "comparison_markdown",
    "comparison_text",
]
