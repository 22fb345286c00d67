"""`python -m lumbar_tf.info`: versions, devices, optional parts and bundles of this installation."""

from pathlib import Path

from pydantic import Field

import lumbar_tf
from lumbar_tf.cli.command import CommandOptions, run_command
from lumbar_tf.cli.console import ExitStatus, Figure, Summary


class InfoOptions(CommandOptions):
    """Shows versions, devices, optional parts and the bundles that are found, with their checks.

    Nothing is run, written or downloaded. The exit status is 1 if a bundle is refused.
    """

    models: Path = Field(
        Path("models/lumbar"),
        description="Folder of exported versions, or a version.",
    )


def run_info(options: InfoOptions) -> Summary:
    """Describes the installation."""
    environment = lumbar_tf.info(options.models)
    figures: dict[str, Figure] = dict(environment.versions)
    figures["devices"] = environment.devices
    for extra, missing in environment.extras.items():
        figures[f"extra {extra}"] = f"lacks {', '.join(missing)}" if missing else "complete"
    notes = [f"{bundle.path}: {bundle.verdict}. {bundle.training}" for bundle in environment.bundles]
    if not environment.bundles:
        notes.append(f"No bundle: neither in {options.models}, nor the pretrained ensemble.")
    is_refused = any(bundle.faults for bundle in environment.bundles)
    return Summary(
        "Installation",
        figures,
        notes=notes,
        lists={"bundles": [bundle.to_json() for bundle in environment.bundles]},
        status=ExitStatus.DATA if is_refused else ExitStatus.DONE,
    )


if __name__ == "__main__":
    run_command(InfoOptions, run_info)
