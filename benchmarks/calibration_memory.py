"""Peak memory of a calibration on 64 and on 1,024 samples of the example, each in its own process.

    python benchmarks/calibration_memory.py

Must hold: within 10 % of each other, for every calibrator.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

from machine import describe

from deploy import registry

_DIGITS = Path(__file__).parent.parent / "examples" / "digits"


def calibrate_once(samples: int, calibrator: str) -> float:
    """MiB at the peak of this process after one calibration."""
    from deploy.calibrate import calibrate
    from deploy.data import open_samples
    from deploy.fuse import fuse
    from deploy.load import load, read
    from deploy.recipe import Recipe

    model = fuse(load(read(_DIGITS / "digits.onnx")), ["fold_affine"])
    recipe = Recipe(samples=samples, calibrator=calibrator)
    chosen = open_samples(str(_DIGITS / "calib.npz"), recipe, model)
    assert len(chosen) == samples
    calibrate(model, chosen, calibrator, batch_size=recipe.batch_size)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    print(describe())
    print("calibrator      64 samples  1,024 samples  ratio")
    for calibrator in registry.names("calibrator"):
        peaks = []
        for samples in (64, 1024):
            command = [sys.executable, __file__, str(samples), calibrator]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks.append(float(done.stdout))
        ratio = peaks[1] / peaks[0]
        print(
            f"{calibrator:<14} {peaks[0]:7.1f} MiB  {peaks[1]:9.1f} MiB  {ratio:5.3f} (within 1.1)"
        )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(calibrate_once(int(sys.argv[1]), sys.argv[2]))
    else:
        main()
