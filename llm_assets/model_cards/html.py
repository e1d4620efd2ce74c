"""A model card as one HTML page, to be read or filed without any other program."""

from html import escape

from markdown_it import MarkdownIt

HEADER_END = "\n---\n"
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif }}
table {{ border-collapse: collapse }}
td, th {{ border: 1px solid #ccc; padding: .25rem .6rem; text-align: left; overflow-wrap: anywhere }}
</style>
</head>
<body>
{body}</body>
</html>"""


def without_header(card: str) -> str:
    """The card's Markdown without the YAML before it, which is for machines."""
    return card.split(HEADER_END, 1)[-1]


def card_html(card: str, *, title: str) -> str:
    """The whole page. Texts of people and models in it are shown as they are, never run as HTML."""
    body = MarkdownIt("js-default").render(without_header(card))
    return PAGE.format(title=escape(title), body=body)
