"""HTML of packages and popups: what is kept, what is not, and that cleaning it twice is once."""

from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.catalog.html import MAX_CHARACTERS, MAX_TAGS, sanitise
from server.kernel.errors import DomainError, Reason

FIELD = "package.content"
TAGS = {"h1", "p", "ul", "li", "a", "img", "table", "tr", "td", "b", "i", "code", "br", "span"}
KEPT = TAGS | {"tbody", "em", "ol"}
PIECES = [
    *(f"<{name}>" for name in sorted(KEPT)),
    *(f"</{name}>" for name in sorted(KEPT)),
    *("<script>", "</script>", "<style>", "</style>", "<svg>", "</svg>", "<math>", "<mtext>"),
    *("<select>", "<template>", "<noscript>", "<!--", "-->", "<![CDATA[", "<form>", "<iframe>"),
    *("<pre>\n", "<textarea>", "<title>", "<object data='x'>", "<mglyph>", "<annotation-xml>"),
    '<a href="https://a.example/?b=1&c=2">',
    "<a href='javascript:alert(1)'>",
    '<a href="data:text/html,x" onclick="x()">',
    '<img src="https://a.example/b.png" onerror="x()">',
    "<img src='//a.example/b.png' alt='\"'>",
    '<p style="position:fixed" id="x" class="y">',
    *("&lt;", "&amp;", "&", "<", ">", '"', "'", "=", "/", "\n", "\0", "text", "é"),
]


class Seen(HTMLParser):
    """The tags and attributes that a reader of the result sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: dict[str, list[str]] = {}
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, []).append(value or "")


def cleaned(html: str) -> str:
    return sanitise(html, FIELD)


def test_what_is_allowed_stays() -> None:
    html = (
        "<h2>Pro</h2><p>All of <b>it</b>, <em>now</em><br>"
        '<a href="https://a.example/?b=1&amp;c=2" title="t" rel="noopener">here</a> or '
        '<a href="mailto:a@b.example" rel="noopener">there</a></p>'
        "<ul><li>one</li></ul>"
        '<img src="https://a.example/b.png" alt="b" width="10" height="10">'
        '<table><thead><tr><th scope="col">x</th></tr></thead>'
        '<tbody><tr><td colspan="2">y</td></tr></tbody></table>'
    )
    assert cleaned(html) == html


@pytest.mark.parametrize(
    ("html", "left"),
    [
        ("a<script>b</script>c", "ac"),
        ("a<style>b</style>c", "ac"),
        ("a<iframe src='https://x.example'>b</iframe>c", "ac"),
        ("<p onclick='x()' style='color:red' class='y' id='z'>a</p>", "<p>a</p>"),
        ("<a href='javascript:x()'>a</a>", '<a rel="noopener">a</a>'),
        ("<a href='JaVaScRiPt:x()'>a</a>", '<a rel="noopener">a</a>'),
        ("<a href='java\nscript:x()'>a</a>", '<a rel="noopener">a</a>'),
        ("<a href='&#106;avascript:x()'>a</a>", '<a rel="noopener">a</a>'),
        ("<a href='data:text/html,x'>a</a>", '<a rel="noopener">a</a>'),
        ("<a href='//x.example'>a</a>", '<a rel="noopener">a</a>'),
        ("<a rel='opener' target='_blank'>a</a>", '<a rel="noopener">a</a>'),
        ("<img src='http://x.example/a.png'>", "<img>"),
        ("<img src='data:image/png;base64,AAAA'>", "<img>"),
        ("<img src='https://x.example' onerror='x()'>", '<img src="https://x.example">'),
        ("<form action='https://x.example'><input>a</form>", "a"),
        ("<custom-tag>a</custom-tag>", "a"),
        ("a<!-- b -->c", "ac"),
        ("1 < 2 & 3", "1 &lt; 2 &amp; 3"),
    ],
)
def test_what_is_not_allowed_goes(html: str, left: str) -> None:
    assert cleaned(html) == left


@settings(max_examples=400, deadline=None)
@example("<table><a href='https://x'><table><a href='https://y'>")
@example("<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1&gt;'>")
@example("<svg></p><style><a id='</style><img src=1 onerror=alert(1)>'>")
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=40).map("".join))
def test_cleaning_twice_is_cleaning_once(html: str) -> None:
    once = cleaned(html)
    assert cleaned(once) == once
    seen = Seen(once)
    assert seen.tags <= KEPT
    assert seen.attributes.keys() <= {"href", "src", "alt", "title", "rel"}
    assert all(one.startswith("https://") for one in seen.attributes.get("href", ()))
    assert all(one.startswith("https://a.example") for one in seen.attributes.get("src", ()))


@pytest.mark.parametrize("html", ["<b>" * (MAX_TAGS + 1), "&" * (MAX_CHARACTERS // 2)])
def test_what_is_too_much_is_refused(html: str) -> None:
    with pytest.raises(DomainError) as refusal:
        cleaned(html)
    assert refusal.value.reason is Reason.FIELD_INVALID
    assert refusal.value.metadata == {"field": FIELD}
