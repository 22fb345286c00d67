"""Every command line in the documents takes the flags that it is shown with."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from lumbar_tf.cli.command import GLOBAL_FLAGS
from lumbar_tf.cli.completion import command_options

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    REPOSITORY / "README.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
    REPOSITORY / "tfrecords" / "README.md",
]
#: Lines that call others' programs, or scripts whose flags are not the package's.
OTHERS = re.compile(r"^.*(?:pip install|python tests/|tensorboard --logdir).*$", re.MULTILINE)
#: Flags of others' programs that the text names.
FOREIGN = {
    "serving.md": {
        "allow_version_labels_for_unavailable_models",
        "grpc_max_threads",
        "profile",
        "rest_api_timeout_in_ms",
        "tls_",
    },
    "commands.md": {"completion"},
}


def _name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def _read(path: Path) -> str:
    """The text, each command line continued by a backslash on one line."""
    return path.read_text(encoding="utf-8").replace("\\\n", " ")


def _commands(text: str) -> list[tuple[str, str]]:
    """Each command's module and the words behind it, up to a comment or the end of the code."""
    return re.findall(r"python -m (lumbar_tf(?:\.\w+)+)([^`\n#]*)", text)


def _options(module: str) -> type[BaseModel]:
    return command_options(module.removeprefix("lumbar_tf."))


def _flags(text: str) -> set[str]:
    found = {each.replace("-", "_") for each in re.findall(r"--([a-z][a-z_-]*)", text)}
    return found - {each.removeprefix("--") for each in GLOBAL_FLAGS}


SHOWN = [(_name(path), *command) for path in DOCUMENTS for command in _commands(_read(path))]


@pytest.mark.parametrize(("document", "module", "words"), SHOWN)
def test_every_command_takes_the_flags_that_it_is_shown_with(document: str, module: str, words: str) -> None:
    assert _flags(words) <= set(_options(module).model_fields)


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_every_flag_that_the_text_names_is_one_of_a_command(path: Path) -> None:
    text = _read(path)
    known = {name for module, _ in _commands(text) for name in _options(module).model_fields}
    assert _flags(OTHERS.sub("", text)) - known <= FOREIGN.get(path.name, set())
