"""The templates of self-contained pages: everything is escaped, and nothing is loaded from anywhere."""

import base64
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def page_templates() -> "Environment":
    """Returns the templates of `reports/templates`, with autoescape; an unknown name is an error."""
    # Here, not above: a command's --help does not wait for it.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("lumbar_tf.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def data_uri(png: bytes) -> str:
    """Returns a PNG as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
