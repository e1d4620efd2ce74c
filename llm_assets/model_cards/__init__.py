"""Model cards computed from lineage. Pure: evidence in, text out."""

from llm_assets.model_cards.contents import card_json
from llm_assets.model_cards.evidence import Evidence, SampleAnswer
from llm_assets.model_cards.rendering import card_markdown, model_summary, version_summary

__all__ = ["Evidence", "SampleAnswer", "card_json", "card_markdown", "model_summary", "version_summary"]
