"""`python -m lumbar_tf.export`: the trained ensemble as one SavedModel."""

from pathlib import Path

from pydantic import PositiveInt

from lumbar_tf.cli import CommandOptions, run_command


class ExportOptions(CommandOptions):
    """Writes the ensemble as a SavedModel that TF Serving serves.

    Flags:
        --runs     Folder of the runs (runs).
        --stacker  stacker.json, as lumbar_tf.stack wrote it (runs/stack/stacker.json).
        --out      Folder of versions (models/lumbar).
        --version  Version number; the next free one by default.
    """

    runs: Path = Path("runs")
    stacker: Path | None = None
    out: Path = Path("models/lumbar")
    version: PositiveInt | None = None


def export(options: ExportOptions) -> None:
    """Exports and says where."""
    # Here, not above: TensorFlow takes seconds to import, and --help must not wait for it.
    from lumbar_tf.ensemble.bundle import export_ensemble, load_ensemble

    ensemble = load_ensemble(options.runs, options.stacker or options.runs / "stack" / "stacker.json")
    path = export_ensemble(ensemble, options.runs, options.out, version=options.version)
    print(f"Members: {', '.join(ensemble.stacker.members)}")
    print(f"SavedModel: {path}")


if __name__ == "__main__":
    run_command(ExportOptions, export)
