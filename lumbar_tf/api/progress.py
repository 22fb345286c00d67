"""Progress of long calls, shown on request."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from lumbar_tf.cli.progress import ProgressMaker, progress_bar, show_activity, silent_progress


def progress_of(title: str, *, verbose: bool, unit: str = "study") -> ProgressMaker:
    """Returns a progress bar on stderr, or one that shows nothing."""
    return partial(progress_bar, title, unit=unit) if verbose else silent_progress


@contextmanager
def activity_of(title: str, *, verbose: bool) -> Iterator[None]:
    """Shows on stderr that something of unknown length is running, if requested."""
    if not verbose:
        yield
        return
    with show_activity(title):
        yield
