"""The paper's Fig. 2 from trained networks: accumulators before and behind the clip, and behind the batch norm.

    python benchmarks/accuracy/saturation_figure.py --data-dir DIR [--work build/accuracy]

Draws benchmarks/results/saturation_NETWORK_STAGE.png for a VGG and a ResNet that `train.py` left in the work folder:
after stage 1, as it was trained, with the range that the clip is going to have, and after stage 2 at step 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from images import load, scale  # noqa: E402

from larq_clip._callbacks.saturation_files import draw  # noqa: E402
from larq_clip._callbacks.saturation_monitor import measure  # noqa: E402
from larq_clip._keras import keras  # noqa: E402
from larq_clip.models import clip_model, set_clipping  # noqa: E402

RESULTS = Path(__file__).parent.parent / "results"
LAYERS = {
    "vgg_11_cifar10_quarter": ("conv2", "conv5", "conv7"),
    "resnet_e18_cifar10_quarter": ("conv2", "conv9", "conv15"),
}
IMAGES, BINS = 500, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--work", type=Path, default=Path("build/accuracy"))
    arguments = parser.parse_args()
    samples = scale(load("cifar10", arguments.data_dir).x_test[:IMAGES])
    for experiment, layers in LAYERS.items():
        folder = arguments.work / experiment / "seed1"
        unclipped = clip_model(keras.models.load_model(folder / "stage1.keras", compile=False))
        set_clipping(unclipped, False)
        clipped = keras.models.load_model(folder / "clip1.keras", compile=False)
        for stage, model in (("stage1", unclipped), ("stage2", clipped)):
            measured = [found for found in measure(model, samples) if found.path in layers]
            path = RESULTS / f"saturation_{experiment.split('_cifar10')[0]}_{stage}.png"
            draw(path, 0, measured, BINS)
            print(path)


if __name__ == "__main__":
    main()
