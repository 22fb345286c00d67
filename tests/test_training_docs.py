"""`docs/training.md` names what there is."""

import importlib
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from lumbar_tf import config
from lumbar_tf.cli import CommandOptions

REPOSITORY = Path(__file__).resolve().parents[1]
TEXT = (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"python -m (lumbar_tf\.\w+)([^`\n]*)", TEXT)


def _options(module: str) -> type[BaseModel]:
    (found,) = {
        each
        for each in vars(importlib.import_module(module)).values()
        if isinstance(each, type) and issubclass(each, CommandOptions) and each is not CommandOptions
    }
    return found


def _flags(text: str) -> set[str]:
    return {each.replace("-", "_") for each in re.findall(r"--([a-z][a-z-]*)", text)}


@pytest.mark.parametrize(("module", "words"), COMMANDS)
def test_every_command_takes_the_flags_that_it_is_shown_with(module: str, words: str) -> None:
    assert _flags(words) <= set(_options(module).model_fields)


def test_every_flag_that_the_text_names_is_one_of_a_command() -> None:
    ours = re.sub(
        r"^(    python tests/.*|.*`python tests/.*|.*tensorboard --logdir.*)$", "", TEXT, flags=re.M
    )
    known = {name for module, _ in COMMANDS for name in _options(module).model_fields}
    assert _flags(ours) - known == set()


def test_every_field_in_the_table_of_settings_exists() -> None:
    (table,) = re.findall(r"\| group \| what it decides \|\n(.*?)\n\n", TEXT, re.S)
    fields = {
        name
        for each in vars(config).values()
        if isinstance(each, type) and issubclass(each, BaseModel)
        for name in each.model_fields
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
