"""What an HTML page of ours is made of, and that it is one file which loads nothing."""

import base64
import hashlib
import re
from html.parser import HTMLParser

#: Elements that never have an end tag.
_VOID = {"meta", "img", "br", "input"}
_LOADING = {"script", "link", "iframe", "object", "embed", "form", "base"}
_ADDRESSES = ("src", "href", "xlink:href", "action", "poster", "background")


class Page(HTMLParser):
    """A page taken apart.

    Attributes:
        tags: each element's name and attributes, in order.
        text: what a reader reads; a space stands for each element.
        open: elements that nothing has closed yet.
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
        """The text on one line, without the places where a long word may be broken."""
        return " ".join(self.text.replace("\u200b", "").split())

    @property
    def pictures(self) -> list[str | None]:
        """What each picture says that it shows."""
        return [attributes["alt"] for tag, attributes in self.tags if tag == "img"]


def check_self_contained(text: str, *, has_script: bool = False) -> None:
    """Asserts that a page is well formed, asks no other file for anything and runs nothing.

    With `has_script` it runs one script that it holds, and its policy lets the browser run no other.
    """
    page = Page(text)
    assert not page.open
    assert not {tag for tag, _ in page.tags} & (_LOADING - ({"script"} if has_script else set()))
    if has_script:
        _check_script(text)
        text = text.replace("<script", "")
    for tag, attributes in page.tags:
        for name in _ADDRESSES:
            # A link asks for nothing until somebody follows it, to a file beside this one.
            is_link = (tag, name) == ("a", "href") and (attributes["href"] or "").startswith(".")
            assert is_link or (attributes.get(name) or "data:").startswith("data:")
    assert not re.search(r"https?:|url\(|@import|<script", text)


def _check_script(text: str) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    # What is no script to a browser is not run: JSON.
    assert re.findall(r"<script([^>]*)>", text) == [' type="application/json" id="data"', ""]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"script-src 'sha256-{digest}'" in policy
    assert not re.search(
        r"\b(fetch|XMLHttpRequest|WebSocket|import|eval|Function|EventSource|sendBeacon)\b", script
    )
