"""Links in the documents lead to files and headings of the repository; other addresses are well formed."""

import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.documents import DOCUMENTS, REPOSITORY, document_name

NOTEBOOK = REPOSITORY / "docs" / "explore.ipynb"
PATHS = [
    *DOCUMENTS,
    *sorted((REPOSITORY / "docs" / "reference").glob("*.md")),
    REPOSITORY / "CHANGELOG.md",
    REPOSITORY / "tests" / "benchmarks" / "README.md",
    NOTEBOOK,
]
_LINK = re.compile(r'(?<!`)!?\[[^\]]*\]\(([^)\s]+)\)|(?:src|srcset|href)="([^"]+)"|<(https?:[^>]+)>')
#: Files of the repository that the text names without a link.
_NAMED = re.compile(
    r"`((?:\.ci|configs|docs|lumbar_tf|tests|tfrecords)/[\w./]+\.(?:py|md|yaml|cc|ipynb|config))`"
)


def _read(path: Path) -> str:
    """A document's text without what is in fences and indented blocks; a notebook's, of its text cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(each["source"]) for each in cells if each["cell_type"] == "markdown")
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^    .*$", "", text, flags=re.MULTILINE)


def _anchors(path: Path) -> set[str]:
    """The anchors of its headings, by the rule that GitHub and MkDocs share for plain words."""
    titles = re.findall(r"^#+ (.+)$", _read(path), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


def _links(path: Path) -> list[str]:
    return [next(filter(None, found)) for found in _LINK.findall(_read(path))]


def _fault(path: Path, link: str) -> str:
    """What is wrong with a link; "" where nothing is."""
    if "://" in link:
        parts = urlsplit(link)
        is_good = parts.scheme in ("http", "https") and "." in (parts.hostname or "") and " " not in link
        return "" if is_good else "no address"
    name, _, anchor = link.partition("#")
    target = (path.parent / name).resolve() if name else path
    if not target.exists():
        return "no such file"
    if REPOSITORY not in target.parents:
        return "outside the repository"
    return "" if not anchor or anchor in _anchors(target) else "no such heading"


@pytest.mark.parametrize("path", PATHS, ids=document_name)
def test_every_link_leads_somewhere(path: Path) -> None:
    assert [(link, fault) for link in _links(path) if (fault := _fault(path, link))] == []


@pytest.mark.parametrize("path", PATHS, ids=document_name)
def test_every_file_that_the_text_names_is_there(path: Path) -> None:
    named = re.sub(r"\s+", " ", _read(path))
    assert [name for name in _NAMED.findall(named) if not (REPOSITORY / name).exists()] == []


@pytest.mark.parametrize(
    ("link", "fault"),
    [
        ("docs/nowhere.md", "no such file"),
        ("docs/design.md#nowhere", "no such heading"),
        ("docs/design.md#how-to-add", ""),
        ("../elsewhere", "no such file"),
        ("https://", "no address"),
        ("https://example.org/a", ""),
    ],
)
def test_a_link_that_leads_nowhere_is_seen(link: str, fault: str) -> None:
    assert _fault(REPOSITORY / "README.md", link) == fault


def test_links_are_found() -> None:
    assert len(_links(REPOSITORY / "README.md")) > 15
    assert len(_links(NOTEBOOK)) >= 4
