"""HTML that a product shows as it is: what is not on the list of what is allowed is removed."""

import re
from typing import Final

import nh3

from server.kernel.errors import field_invalid

MAX_CHARACTERS: Final = 50_000
"""Of what is kept; the contract bounds what comes in alike."""

MAX_TAGS: Final = 3_000
"""Opening and closing ones: what nests badly takes their square to repair."""

MAX_ROUNDS: Final = 8

_HEADINGS: Final = {"h1", "h2", "h3", "h4", "h5", "h6"}
_BLOCKS: Final = {"p", "br", "hr", "blockquote", "ul", "ol", "li", "dl", "dt", "dd"}
_TABLES: Final = {"table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td"}
_INLINE: Final = {"a", "img", "b", "strong", "i", "em", "u", "s", "del", "ins", "mark", "small"} | {
    *("sub", "sup", "code", "span")
}
_ATTRIBUTES: Final = {
    "a": {"href", "title"},
    "img": {"src", "alt", "title", "width", "height"},
    "ol": {"start"},
    "th": {"colspan", "rowspan", "scope"},
    "td": {"colspan", "rowspan"},
}
_ADDRESSES: Final = {
    "href": re.compile(r"(?:https?://|mailto:)[^\s]", re.IGNORECASE),
    "src": re.compile(r"https://[^\s]", re.IGNORECASE),
}


def sanitise(html: str, field: str) -> str:
    """`html` with only what is allowed; the same again for what it gives back.

    FIELD_INVALID naming `field` for what cannot be made sense of, or is too long afterwards.
    """
    if html.count("<") > MAX_TAGS:
        raise field_invalid(field, f"more than {MAX_TAGS} tags")
    # Written out and read again, badly nested markup may mean something else.
    for _ in range(MAX_ROUNDS):
        before, html = html, _CLEANER.clean(html)
        if html == before:
            break
    else:
        raise field_invalid(field, "is not nested as HTML is")
    if len(html) > MAX_CHARACTERS:
        raise field_invalid(field, f"more than {MAX_CHARACTERS} characters once it is cleaned")
    return html


def _attribute(_tag: str, name: str, value: str) -> str | None:
    """None for an address that is not told to be harmless by its very beginning."""
    pattern = _ADDRESSES.get(name)
    return value if pattern is None or pattern.match(value) else None


_CLEANER: Final = nh3.Cleaner(
    tags=_HEADINGS | _BLOCKS | _TABLES | _INLINE,
    clean_content_tags={"script", "style", "iframe", "object", "template"},
    attributes=_ATTRIBUTES,
    attribute_filter=_attribute,
    link_rel="noopener",
    url_schemes={"http", "https", "mailto"},
)
