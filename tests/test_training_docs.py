"""`docs/training.md` names what there is."""

import importlib
import re
from pathlib import Path

from pydantic import BaseModel

from lumbar_tf import config

REPOSITORY = Path(__file__).resolve().parents[1]
TEXT = (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8")


def test_every_field_in_the_table_of_settings_exists() -> None:
    (table,) = re.findall(r"\| group \| what it decides \|\n(.*?)\n\n", TEXT, re.S)
    fields = {
        name
        for kind in vars(config).values()
        if isinstance(kind, type) and issubclass(kind, BaseModel)
        for name in kind.model_fields
    }
    named = {part for text in re.findall(r"`([a-z_.]+)`", table) for part in text.split(".")}
    assert len(named) > 30
    assert named <= fields


def test_every_function_and_file_that_the_text_names_exists() -> None:
    for name in re.findall(r"`(lumbar_tf(?:\.\w+)+)`", TEXT):
        module, _, function = name.rpartition(".")
        assert hasattr(importlib.import_module(module), function), name
    for name in re.findall(r"`((?:lumbar_tf|tests)/[\w/]+\.py)`", TEXT):
        assert (REPOSITORY / name).is_file(), name
