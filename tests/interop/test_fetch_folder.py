"""Folder for fetched images: modes, and what killed programs leave."""

import subprocess
import sys
from pathlib import Path

import pytest

from lumbar_tf.interop.fetch_folder import fetch_folder

ROOT = Path(__file__).resolve().parents[2]


def test_the_folder_of_a_killed_program_is_removed_and_that_of_a_running_one_is_not(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from lumbar_tf.interop.fetch_folder import fetch_folder\n"
        f"with fetch_folder(Path({str(tmp_path)!r})) as folder:\n"
        "    (folder / 'image.dcm').write_text('Doe')\n    print(folder, flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        image = Path(process.stdout.readline().strip()) / "image.dcm"
        with fetch_folder(tmp_path) as folder:
            assert image.exists() and folder.parent != image.parent.parent
        assert image.exists() and not folder.exists()
    finally:
        process.kill()
        process.communicate()
    assert image.exists()
    with fetch_folder(tmp_path):
        assert not image.exists()


def test_the_folder_is_the_users_own(tmp_path: Path) -> None:
    with fetch_folder(tmp_path) as folder:
        assert all(place.stat().st_mode & 0o777 == 0o700 for place in (folder, *folder.parents[:2]))
        root = folder.parents[1]
    root.chmod(0o755)
    with pytest.raises(PermissionError, match="0700"), fetch_folder(tmp_path):
        pass
