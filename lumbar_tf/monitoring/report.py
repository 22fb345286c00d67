"""What a comparison found, for people and for programs."""

import json
from dataclasses import asdict

from lumbar_tf.cli.console import Summary
from lumbar_tf.monitoring.drift import Comparison, Shift
from lumbar_tf.monitoring.reference import Reference

_DIGITS = 6


def comparison_json(comparison: Comparison, reference: Reference, *, num_bad_lines: int) -> str:
    """Returns a comparison as a JSON document; `moved` names what moved, `quantities` holds all."""
    content = {
        "model": reference.model,
        "reference": reference.made_from,
        "num_studies": comparison.num_studies,
        "num_of_other_versions": comparison.num_of_others,
        "num_bad_lines": num_bad_lines,
        "moved": [each.name for each in comparison.moved],
        "quantities": [_shift_json(each) for each in comparison.shifts],
        "uncompared": list(comparison.uncompared),
        "unlogged": list(comparison.unlogged),
    }
    return json.dumps(content, indent=1, allow_nan=False)


def _shift_json(shift: Shift) -> dict[str, object]:
    return {
        # A p-value of 1e-9 must not become 0.
        name: round(value, _DIGITS) if isinstance(value, float) and name != "p_value" else value
        for name, value in asdict(shift).items()
    }


def comparison_lines(comparison: Comparison, reference: Reference, *, num_bad_lines: int) -> list[str]:
    """Returns what moved, and what could not be compared, a line each."""
    lines = [
        f"{comparison.num_studies} studies of version {reference.model} against {reference.made_from}: "
        f"{len(comparison.moved)} of {len(comparison.shifts)} quantities moved"
    ]
    lines.extend(f"  {_shift_line(shift)}" for shift in comparison.moved)
    for count, what in (
        (comparison.num_of_others, "rows of other versions were left out"),
        (num_bad_lines, "lines of the log could not be read"),
        (len(comparison.uncompared), "logged quantities are not in the reference"),
        (len(comparison.unlogged), "quantities of the reference were not logged"),
    ):
        if count:
            lines.append(f"  ({count} {what})")
    return lines


def summarise_comparison(comparison: Comparison, reference: Reference, status: int) -> Summary:
    """Returns the comparison's counts; the JSON object of `--json` names what moved."""
    return Summary(
        "Compared",
        {
            "studies": comparison.num_studies,
            "version": reference.model,
            "quantities": len(comparison.shifts),
            "moved": len(comparison.moved),
        },
        lists={"moved": [_shift_json(each) for each in comparison.moved]},
        status=status,
    )


def _shift_line(shift: Shift) -> str:
    size = "large" if shift.is_large else "moderate"
    line = (
        f"{shift.name}: {size}, PSI {shift.psi:.2f}, p {shift.p_value:.1e}, "
        f"median {_number(shift.reference_median)} -> {_number(shift.window_median)}"
    )
    if shift.reference_missing or shift.window_missing:
        line += f", missing {shift.reference_missing:.0%} -> {shift.window_missing:.0%}"
    return line


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
