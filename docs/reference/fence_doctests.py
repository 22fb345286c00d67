"""Griffe extension that fences doctests as Python code, because Markdown reads `>>>` as nested quotations."""

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"^>>> .*(?:\n(?!$).*)*", re.MULTILINE)


def fence_doctests(text: str) -> str:
    """Returns a docstring with a fence around each doctest, which ends at the next empty line."""
    return _DOCTEST.sub(lambda found: f"```python\n{found[0]}\n```", text)


class FenceDoctests(griffe.Extension):
    """Fences the doctests of every docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Fences the doctests of an object's docstring, if it has one."""
        if obj.docstring is not None:
            obj.docstring.value = fence_doctests(obj.docstring.value)
