"""Model card of a bundle: contents, intended use, scores and limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template

_CARD, _RECALIBRATION = "model_card.md", "recalibration.md"
#: The last section of a recalibrated bundle's card.
_RECALIBRATION_HEADING = "\n## Recalibration\n"
_TERMS = ("score", "canal", "foraminal", "subarticular", "any_severe_spinal")


@dataclass(frozen=True)
class Measured:
    """Metrics of one set of studies, as in `metrics.json` of `lumbar_tf.evaluate`.

    Attributes:
        title: heading of the set of studies.
        competition: of the competition head; empty where it was not evaluated.
        probability: of the probability head; empty where it was not evaluated.
    """

    title: str
    competition: Mapping[str, Any]
    probability: Mapping[str, Any]


@dataclass(frozen=True)
class ModelFacts:
    """Training data and metrics of an export, for its description and its model card.

    Attributes:
        data: origin of the training studies, as free text; empty if unknown.
        is_synthetic: whether the training studies are synthetic.
        measured: metrics, out of fold and held out; empty where nothing was evaluated.
    """

    data: str = ""
    is_synthetic: bool = False
    measured: Sequence[Measured] = ()


def render_card(description: Mapping[str, Any], facts: ModelFacts) -> str:
    """Returns the card as Markdown.

    Args:
        description: from `exporting.describe_ensemble`.
        facts: given at export.
    """
    return _template(_CARD).render(
        description=description,
        facts=facts,
        terms=_TERMS,
        megabytes=sum(plane["weights_bytes"] for plane in description["planes"].values()) / 1e6,
    )


def recalibrated_card(card: str, description: Mapping[str, Any]) -> str:
    """Returns the card of a recalibrated bundle.

    Args:
        card: of the bundle that was recalibrated; a section about an earlier recalibration is replaced.
        description: content of `ensemble.json`, with the recalibration.
    """
    title, _, rest = card.partition("\n")
    words = [*title.split(" ")[:-1], str(description["version"])]
    section = _template(_RECALIBRATION).render(recalibration=description["recalibration"])
    return f"{' '.join(words)}\n{rest.partition(_RECALIBRATION_HEADING)[0]}{_RECALIBRATION_HEADING}{section}"


def format_interval(figure: Mapping[str, float] | None) -> str:
    """Returns `0.41 [0.39, 0.43]`, or a dash where nothing was measured."""
    if not figure or figure.get("value") is None:
        return "-"
    return f"{figure['value']:.4f} [{figure['low']:.4f}, {figure['high']:.4f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


@cache
def _template(name: str) -> "Template":
    # Imported here because predictions do not need it. The text is Markdown, not HTML.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(  # noqa: S701 - nothing is escaped in Markdown
        loader=PackageLoader("lumbar_tf.bundle"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(interval=format_interval, number=_number)
    return environment.get_template(name)
