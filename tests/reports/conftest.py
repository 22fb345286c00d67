"""Records of a few synthetic studies, and what figures say."""

import matplotlib.figure
import matplotlib.text
import pytest

# What its checks compared is shown, as in a test's own file.
pytest.register_assert_rewrite("tests.reports.html_page")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text of the figures that are saved."""
    texts: list[str] = []
    save = matplotlib.figure.Figure.savefig

    def watch(self: matplotlib.figure.Figure, *args: object, **options: object) -> None:
        texts.extend(text.get_text() for text in self.findobj(matplotlib.text.Text) if text.get_text())
        save(self, *args, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", watch)
    return texts
