"""The model card of a bundle: what it is, what it was measured on, and what it is not for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template

_TEMPLATE = "model_card.md"
_TERMS = ("score", "canal", "foraminal", "subarticular", "any_severe_spinal")


@dataclass(frozen=True)
class Measured:
    """Figures of one set of studies, as `metrics.json` of `lumbar_tf.evaluate` holds them.

    Attributes:
        title: of what, in words.
        competition: of the competition head; empty where it was not evaluated.
        probability: of the probability head; empty where it was not evaluated.
    """

    title: str
    competition: Mapping[str, Any]
    probability: Mapping[str, Any]


@dataclass(frozen=True)
class ModelFacts:
    """What a model card says besides what the runs say.

    Attributes:
        data: where the studies came from, in words; empty where nobody said.
        is_synthetic: whether no patient was among them.
        measured: figures, out of fold and held out; empty where nothing was evaluated.
    """

    data: str = ""
    is_synthetic: bool = False
    measured: Sequence[Measured] = ()


def render_card(description: Mapping[str, Any], facts: ModelFacts) -> str:
    """Returns the card, in Markdown.

    Args:
        description: from `bundle.describe_ensemble`.
        facts: from whoever exports.
    """
    return _template().render(
        description=description,
        facts=facts,
        terms=_TERMS,
        megabytes=sum(each["weights_bytes"] for each in description["planes"].values()) / 1e6,
    )


def _interval(figure: Mapping[str, float] | None) -> str:
    """Returns `0.41 [0.39, 0.43]`, or a dash where nothing was measured."""
    if not figure or figure.get("value") is None:
        return "-"
    return f"{figure['value']:.4f} [{figure['low']:.4f}, {figure['high']:.4f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


@cache
def _template() -> "Template":
    # Here, not above: whoever only asks a bundle does not wait for it. The text is Markdown, no markup.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(  # noqa: S701 - nothing is escaped in Markdown
        loader=PackageLoader("lumbar_tf.bundle"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(interval=_interval, number=_number)
    return environment.get_template(_TEMPLATE)
