"""A PyTorch DataLoader at the same settings, as competition code writes it. Needs an environment of its own:

    python -m venv /somewhere/torch
    /somewhere/torch/bin/pip install torch opencv-python-headless albumentations

`training.py --do=loaders` writes the stacks and calls this. It reads a study's .npy stack, cuts every crop
with cv2.warpAffine (one interpolation, as lumbar_tf has it), augments each crop with albumentations, its
slices as channels, and yields batches of whole studies. Prints JSON: studies and crops a second over whole
epochs, the first left out, and the peak memory of the process and its workers together.
"""

import argparse
import json
import math
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import albumentations
import cv2
import numpy as np
import torch

_WORKERS = 2


class Studies(torch.utils.data.Dataset):
    """Crops of whole studies."""

    def __init__(self, folder: Path, *, is_mapped: bool) -> None:
        self._stacks = sorted(folder.glob("*.npy"))
        self._mode = "r" if is_mapped else None
        self._settings = json.loads((folder / "settings.json").read_text())
        self._augment = _augmentation(self._settings)

    def __len__(self) -> int:
        return len(self._stacks)

    def __getitem__(self, place: int) -> dict[str, Any]:
        settings, path = self._settings, self._stacks[place]
        stack = np.load(path, mmap_mode=self._mode)
        with np.load(path.with_suffix(".npz")) as arrays:
            study = dict(arrays)
        rng = np.random.default_rng(torch.randint(2**31, ()).item())
        warp = _random_warp(rng, settings)
        shift = rng.uniform(-settings["shift_mm"], settings["shift_mm"], 2)
        crops, slices, size = len(study["index"]), settings["num_slices"], settings["side_px"]
        image = np.zeros((crops, slices, size, size), np.float32)
        mask = np.zeros((crops, slices), np.bool_)
        for crop in range(crops):
            # A landmark that is off by a slice: the neighbours of the annotator's slice are there, too.
            first = int(np.clip(np.rint(rng.normal(0, settings["jitter_mm"]) / 4.0), -1, 1)) + 1
            jitter = rng.normal(0, settings["jitter_mm"], 2) + shift
            chosen = range(first, first + slices)
            picture = np.zeros((size, size, slices), np.float32)
            for number, each in enumerate(chosen):
                index = study["index"][crop, each]
                dropped = number != slices // 2 and rng.random() < settings["drop_slice"]
                if index < 0 or dropped:
                    continue
                mask[crop, number] = True
                cut = _cut(stack[index], study["affine"][crop, each], warp, jitter, settings)
                picture[..., number] = np.clip(cut * study["gain"][index] + study["bias"][index], 0, 1)
            picture = self._augment(image=picture)["image"]
            image[crop] = picture.transpose(2, 0, 1) * mask[crop][:, None, None]
        return {"image": torch.from_numpy(image), "mask": torch.from_numpy(mask), "labels": study["labels"]}


def _augmentation(settings: dict[str, float]) -> albumentations.Compose:
    gamma = settings["gamma"]
    return albumentations.Compose(
        [
            albumentations.RandomGamma(gamma_limit=(100 * 2**-gamma, 100 * 2**gamma), p=1.0),
            albumentations.RandomBrightnessContrast(
                brightness_limit=settings["brightness"], contrast_limit=settings["contrast"], p=1.0
            ),
            albumentations.GaussNoise(std_range=(0.0, settings["noise"]), per_channel=True, p=1.0),
        ]
    )


def _random_warp(rng: np.random.Generator, settings: dict[str, float]) -> np.ndarray:
    angle = math.radians(rng.uniform(-settings["rotation_deg"], settings["rotation_deg"]))
    stretch = math.log1p(settings["zoom"])
    zoom = math.exp(rng.uniform(-stretch, stretch))
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([[cosine, -sine], [sine, cosine]]) * zoom


def _cut(
    pixels: np.ndarray, affine: np.ndarray, warp: np.ndarray, jitter: np.ndarray, settings: dict[str, float]
) -> np.ndarray:
    """Interpolates one crop: stored = affine @ (warp @ ((i, j) - middle) * pitch + jitter)."""
    size = int(settings["side_px"])
    to_stored = affine[:, :2] @ warp * (settings["side_mm"] / size)
    middle = np.full(2, (size - 1) / 2)
    offset = affine[:, 2] + affine[:, :2] @ jitter - to_stored @ middle
    matrix = np.column_stack([to_stored, offset])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(np.ascontiguousarray(pixels), matrix, (size, size), flags=flags).astype(np.float32)


def _quiet_worker(_: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _peak_kb() -> int:
    """Peak memory of this process; `ru_maxrss` would count what started it, too."""
    (line,) = (
        each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM")
    )
    return int(line.split()[1])


def _processor_s() -> float:
    """Processor time of the process and of the workers that have ended."""
    uses = [resource.getrusage(each) for each in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in uses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--mmap", action="store_true", help="read only the slices that are needed")
    words = parser.parse_args()
    before, started_s = _peak_kb(), _processor_s()
    dataset = Studies(words.folder, is_mapped=words.mmap)
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=words.batch,
        shuffle=True,
        drop_last=True,
        num_workers=_WORKERS,
        persistent_workers=True,
        worker_init_fn=_quiet_worker,
    )
    times: list[float] = []
    deadline = math.inf
    while not times or time.perf_counter() < deadline:
        started = time.perf_counter()
        shape = [tuple(batch["image"].shape) for batch in loader][-1]
        # The first epoch starts the workers and fills the page cache.
        if deadline == math.inf:
            deadline = time.perf_counter() + words.seconds
        else:
            times.append(time.perf_counter() - started)
    rate = len(dataset) // words.batch * words.batch / statistics.median(times)
    del loader  # so that the workers have ended, and their memory is known
    own, worker = _peak_kb(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    cpu_s = (_processor_s() - started_s) / (len(dataset) // words.batch * words.batch * (len(times) + 1))
    # Pages that a worker shares with its parent count twice: an upper bound.
    peak = own + _WORKERS * worker
    print(
        json.dumps(
            {
                "studies": rate,
                "crops": rate * shape[1] * shape[2],
                "cpu_s": cpu_s,
                "peak_mb": peak / 1024,
                "import_mb": before / 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
