"""Records what timm, torchvision and Pillow make of images, for tests/data: tests/references/images.json.

usage: python3 tools/record_images.py OUT.json

Images are pattern(height, width, channels, phase) of tests/data/image_writing.h.
"""
import json
import pathlib
import sys
import unittest.mock

import numpy as np
import PIL
import timm
import timm.data.mixup
import torchvision
from PIL import Image


def pattern(height, width, channels, phase=0):
    y, x, c = np.indices((height, width, channels))
    return ((y * 160 // height + x * 80 // width + c * 10 + phase * 7) % 256).astype(np.uint8)


def parts():
    """timm's rand_bbox where its random middle is (y, x): height, width, share, y, x, top, bottom, left, right."""
    for height, width in [(8, 8), (7, 12), (1, 5), (224, 160)]:
        for share in [0.0, 0.05, 0.3, 0.5, 0.77, 0.999, 1.0]:
            for y, x in [(0, 0), (height - 1, width - 1), (height // 2, width // 3)]:
                with unittest.mock.patch("numpy.random.randint", side_effect=[y, x]):
                    box = timm.data.mixup.rand_bbox((height, width), share)
                yield [height, width, share, y, x, *(int(v) for v in box)]


def mixed(cutmix, share, middle, phases):
    """timm's FastCollateMixup, mode batch, where it draws this share and this middle; channels first."""
    batch = [(pattern(6, 5, 3, phase).transpose(2, 0, 1), 0) for phase in phases]
    mix = timm.data.mixup.FastCollateMixup(mixup_alpha=0.0 if cutmix else 1.0, cutmix_alpha=1.0 if cutmix else 0.0)
    with unittest.mock.patch("numpy.random.beta", return_value=share), \
         unittest.mock.patch("numpy.random.randint", side_effect=middle):
        pixels, _ = mix(batch)
    return dict(cutmix=cutmix, share=share, middle=middle, height=6, width=5, phases=phases,
                pixels=pixels.flatten().tolist())


def hue(factor):
    image = Image.fromarray(pattern(4, 5, 3, 31) ^ pattern(4, 5, 3, 3) * 3)
    return dict(factor=factor, pixels=np.asarray(torchvision.transforms.functional.adjust_hue(image, factor)).flatten().tolist())


def main():
    share = float(np.float32(0.3))
    result = dict(timm=timm.__version__, torchvision=torchvision.__version__, pillow=PIL.__version__,
                  parts=list(parts()),
                  mixes=[mixed(False, share, [], [0, 9, 20, 33]), mixed(False, float(np.float32(0.9)), [], [5, 1]),
                         mixed(True, share, [1, 3], [0, 9, 20, 33])],
                  hues=[hue(factor) for factor in (0.1, -0.1, 0.37, 0.5, -0.5, 0.003)])
    pathlib.Path(sys.argv[1]).write_text(json.dumps(result, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
