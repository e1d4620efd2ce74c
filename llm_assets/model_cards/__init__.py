"""Model cards computed from lineage. Pure: evidence in, text out."""

from llm_assets.model_cards.card import Card
from llm_assets.model_cards.contents import card_of
from llm_assets.model_cards.evidence import Evidence, SampleAnswer
from llm_assets.model_cards.rendering import card_markdown, model_summary, version_summary

__all__ = ["Card", "Evidence", "SampleAnswer", "card_markdown", "card_of", "model_summary", "version_summary"]
