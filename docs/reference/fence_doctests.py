"""Sets doctests in docstrings as Python code; as Markdown, `>>>` would be a quotation in a quotation."""

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"^>>> .*(?:\n(?!$).*)*", re.MULTILINE)


def fence_doctests(text: str) -> str:
    """Returns a docstring with each of its doctests, up to the next empty line, in a fence."""
    return _DOCTEST.sub(lambda found: f"```python\n{found[0]}\n```", text)


class FenceDoctests(griffe.Extension):
    """Griffe's extension: acts on each docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Changes an object's docstring, if it has one."""
        if obj.docstring is not None:
            obj.docstring.value = fence_doctests(obj.docstring.value)
