"""Help texts that are generated from the fields of a command's options."""

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from lumbar_tf.cli.command import CommaList, CommandOptions, OnlyWith, parse_options
from lumbar_tf.cli.help_text import help_text, option_groups, usage
from lumbar_tf.labels import Plane


class BaseOptions(CommandOptions):
    server: str | None = Field(None, description="Address of the server.")
    deadline_s: Annotated[float, OnlyWith("server")] = Field(60.0, description="Time limit, seconds.")


class DescribedOptions(BaseOptions):
    """Does a toy's work."""

    data: CommaList = Field(description="Folders to read.")
    out: Path = Field(Path("here"), description="Folder to write.")
    plane: Plane = Field(Plane.AXIAL_T2, description="Plane of the slices.")
    sheets: bool = Field(True, description="Do not draw sheets.")
    names: CommaList = Field(("a", "b"), description="Names.")
    port: Annotated[int, OnlyWith("server")] = Field(8500, description="Port.")


class HandWrittenOptions(BaseOptions):
    """Does a toy's work.

    Flags:
        --server    Text of the docstring.
    """


def test_descriptions_and_defaults_come_from_the_fields() -> None:
    lines = [" ".join(line.split()) for line in help_text(DescribedOptions).splitlines()]
    assert lines[0] == "Does a toy's work."
    for line in (
        "--data Folders to read.",
        "--out Folder to write. Default: here.",
        "--plane Plane of the slices. Default: axial_t2.",
        "--nosheets Do not draw sheets.",
        "--names Names. Default: a,b.",
        "--server Address of the server.",
        "--deadline-s Time limit, seconds. Default: 60.",
    ):
        assert line in lines


def test_options_are_grouped_by_the_option_that_they_need_own_ones_first() -> None:
    assert option_groups(DescribedOptions) == {
        "": ["data", "out", "plane", "sheets", "names", "server"],
        "server": ["port", "deadline_s"],
    }
    text = help_text(DescribedOptions)
    assert (
        text.index("Options:") < text.index("--server ") < text.index("With --server:") < text.index("--port")
    )


def test_a_docstring_with_its_own_flags_is_printed_unchanged() -> None:
    text = help_text(HandWrittenOptions)
    assert "Text of the docstring." in text and "Address of the server." not in text


def test_an_option_is_refused_without_the_option_that_it_needs() -> None:
    with pytest.raises(ValueError, match="--port, --deadline-s must come with --server"):
        parse_options(DescribedOptions, ["--data=a", "--deadline-s=1", "--port=1"])
    assert parse_options(DescribedOptions, ["--data=a", "--server=here", "--port=1"]).port == 1


def test_the_usage_line_has_required_options_without_brackets() -> None:
    assert (
        "--data=DATA" in usage(DescribedOptions).split() and "[--out=OUT]" in usage(DescribedOptions).split()
    )
