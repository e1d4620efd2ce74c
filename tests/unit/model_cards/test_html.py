"""A card as an HTML page."""

from llm_assets.model_cards.html import card_html, without_header

CARD = "---\nlicense: apache-2.0\n---\n# support_bot\n\n| Base | Digest |\n|---|---|\n| tiny | `sha256:1` |\n"


def test_a_card_is_a_page_with_its_tables() -> None:
    page = card_html(CARD, title="support_bot of team-a")
    assert "<h1>support_bot</h1>" in page
    assert "<td><code>sha256:1</code></td>" in page
    assert "apache-2.0" not in page


def test_what_people_and_models_wrote_is_shown_and_never_run() -> None:
    page = card_html(f"{CARD}\n<script>alert(1)</script>\n[a](javascript:alert(2))", title="<b>")
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert 'href="javascript' not in page
    assert "<title>&lt;b&gt;</title>" in page


def test_a_card_without_a_header_is_whole() -> None:
    assert without_header("# support_bot\n") == "# support_bot\n"
