"""Leave-one-patient-out figures of the default encoder on volumes that it was never trained on.

    python -m benchmarks.evaluate_volumes [--volumes ../shared/volumes] [--encoders compact classical]

AdrenalMNIST3D's test part (298 shapes of 64^3, healthy or hyperplastic), written as NIfTI for the purpose, and the real
series and files of ../shared by body part. Volumes are embedded as everywhere: slice by slice, at most ``SLICES``
of them, and pooled by their mean.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

import nibabel
import numpy as np

from benchmarks.evaluate_sets import Figures, default_sets, mobilenet, side_by_side
from indexer.evaluate import evaluate_table
from retrieval.settings import Settings

SLICES = 32
ADRENAL = Path("adrenalmnist3d") / "adrenalmnist3d_64.npz"


def write_adrenal(archive: Path, folder: Path) -> Path:
    """The test part as NIfTI files; their labels file."""
    with np.load(archive, allow_pickle=False) as arrays:
        shapes, labels = arrays["test_images"], arrays["test_labels"].ravel()
    folder.mkdir()
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "patient_id"])
        for number, (shape, label) in enumerate(zip(shapes, labels, strict=True)):
            name = f"{number:04d}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(shape, np.eye(4)), folder / name)
            rows.writerow([name, "hyperplasia" if label else "normal", f"adrenal-{number}"])
    return folder / "labels.csv"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=Path, default=default_sets().parent / "volumes")
    parser.add_argument("--encoders", nargs="+", default=[])
    options = parser.parse_args()
    if not (options.volumes / "labels.csv").is_file():
        raise SystemExit(f"Expected labels.csv under {options.volumes}, found none.")
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as temporary:
        adrenal = write_adrenal(options.volumes / ADRENAL, Path(temporary) / "adrenal")
        default = str(Settings.model_fields["encoder"].default)
        for spec in options.encoders or [default, "classical", mobilenet(default_sets(), Path(temporary))]:
            if spec:
                settings = Settings(max_slices=SLICES)
                figures[spec] = {
                    "AdrenalMNIST3D, label": evaluate_table(adrenal, encoder=spec, settings=settings),
                    "series and files, body_part": evaluate_table(
                        options.volumes / "labels.csv", label="body_part", encoder=spec, settings=settings
                    ),
                }
    print(f"P@5, volumes of at most {SLICES} slices:\n")
    print("\n".join(side_by_side(figures)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
