"""Parsed HTML pages, and the check that a page is a single file that loads nothing."""

import base64
import hashlib
import re
from html.parser import HTMLParser

#: Elements that never have an end tag.
_VOID = {"meta", "img", "br", "input"}
_LOADING = {"script", "link", "iframe", "object", "embed", "form", "base"}
_ADDRESSES = ("src", "href", "xlink:href", "action", "poster", "background")


class Page(HTMLParser):
    """A parsed page.

    Attributes:
        tags: name and attributes of each element, in order.
        text: visible text, with a space for each element.
        open: elements that are not closed yet.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.text += " "

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def words(self) -> str:
        """The text on one line, without the marks for optional line breaks in long words."""
        return " ".join(self.text.replace("\u200b", "").split())

    @property
    def pictures(self) -> list[str | None]:
        """Alternative texts of the pictures."""
        return [attributes["alt"] for tag, attributes in self.tags if tag == "img"]


def check_self_contained(text: str, *, has_script: bool = False) -> None:
    """Asserts that a page is well formed, loads no other file and runs no script.

    With `has_script` it contains exactly one script, and its policy keeps the browser from running another.
    """
    page = Page(text)
    assert not page.open
    assert not {tag for tag, _ in page.tags} & (_LOADING - ({"script"} if has_script else set()))
    if has_script:
        _check_script(text)
        text = text.replace("<script", "")
    for tag, attributes in page.tags:
        for name in _ADDRESSES:
            # A link to a neighbouring file loads nothing until it is followed.
            is_link = (tag, name) == ("a", "href") and (attributes["href"] or "").startswith(".")
            assert is_link or (attributes.get(name) or "data:").startswith("data:")
    assert not re.search(r"https?:|url\(|@import|<script", text)


def _check_script(text: str) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    # The browser does not run the JSON element.
    assert re.findall(r"<script([^>]*)>", text) == [' type="application/json" id="data"', ""]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"script-src 'sha256-{digest}'" in policy
    assert not re.search(
        r"\b(fetch|XMLHttpRequest|WebSocket|import|eval|Function|EventSource|sendBeacon)\b", script
    )
