"""The site that `make docs` builds has every page and every room, and loads nothing from other hosts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import REPOSITORY
from tests.test_architecture import RANKS

REFERENCE = REPOSITORY / "docs" / "reference"
#: `docs/api.md` has the public API. The others are no modules to read about, or answer to an old name.
NOT_IN_REFERENCE = {"__init__", "__main__", "api", "imaging", "worklist"}
#: Elements whose address a browser loads without a click.
_LOADED = re.compile(
    r"<(?:script|link|img|source|iframe)\b[^>]*?(?:src|srcset|href)=[\"']?(?:https?:)?//[^\"' >]+"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with `--strict`: a broken link, anchor or reference fails the build."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_site_has_every_page_and_every_room(site: Path) -> None:
    for path in (REPOSITORY / "docs").rglob("*.md"):
        name = path.relative_to(REPOSITORY / "docs").with_suffix("")
        page = site / (name.parent if name.name == "index" else name) / "index.html"
        assert page.is_file(), name
    text = "".join(path.read_text(encoding="utf-8") for path in REFERENCE.glob("*.md"))
    rooms = set(re.findall(r"^::: lumbar_tf\.(\w+)", text, re.MULTILINE))
    commands = {path.stem for path in (REPOSITORY / "lumbar_tf").glob("*.py")}
    assert rooms == (set(RANKS) | commands) - NOT_IN_REFERENCE


def test_reference_has_signatures_and_docstrings(site: Path) -> None:
    text = (site / "reference" / "dicom" / "index.html").read_text(encoding="utf-8")
    assert 'id="lumbar_tf.dicom.geometry.pixel_to_patient"' in text
    assert "ImagePositionPatient" in text
    # A doctest becomes a code block, not nested quotations.
    assert not re.search(r"<blockquote>\s*<blockquote>", text)


def test_no_page_loads_anything_from_other_hosts(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        assert _LOADED.findall(page.read_text(encoding="utf-8")) == [], page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style
