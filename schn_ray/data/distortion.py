"""Distorted views of training images, for methods that compare two views of a row."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter
from pydantic import Field

from schn_ray.core.settings import Section, Share
from schn_ray.data.images import FILTERS, Preprocessing, channels_first

_JITTERED = 0.8  # share of the views whose colours change
_JITTER = (0.4, 0.8, 0.8)  # most change of brightness, contrast and saturation
_HUE = 0.2  # most change, of the whole circle
_RATIO = 4 / 3  # most width over height of the part that is shown, and most height over width
_BLUR = (0.1, 2.0)  # standard deviation, in pixels of a view of 224 pixels


class Distortion(Section):
    """How distorted views differ from their image. Defaults as DHD's strong views (ECCV 2022).

    Attributes:
        flip: mirror half of the views, of plain ones, too.
        area: least share of the image that a view shows.
        colour: strength of the changes of brightness, contrast, saturation and hue, of 4 views out
            of 5; 0: none.
        grey: share of the views without colours.
        blur: share of the views that are blurred.
    """

    flip: bool = True
    area: Annotated[float, Field(gt=0, le=1)] = 0.4
    colour: Share = 1.0
    grey: Share = 0.2
    blur: Share = 0.5

    @property
    def changes_images(self) -> bool:
        """Whether a view differs from its image."""
        return self.area < 1 or max(self.colour, self.grey, self.blur) > 0


def distorted_view(
    image: Image.Image, p: Preprocessing, distortion: Distortion, draws: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Show a random part of an image, of other proportions, other colours, or blurred.

    Args:
        image: as ``data.images.decode_for`` gives it.
        p: has the size of the view.
        distortion: how it may differ from the image.
        draws: [3] random numbers, the seed of all that is drawn.

    Returns:
        uint8 [3, crop, crop].
    """
    rng = np.random.default_rng(draws.view(np.uint64))
    part, mirrored = _part(image.size, distortion.area, rng), rng.random() < 0.5
    view = image.resize((p.crop, p.crop), FILTERS[p.interpolation], box=part)
    view = _other_colours(view, distortion, rng)
    deviation = rng.uniform(*_BLUR) * p.crop / 224
    if rng.random() < distortion.blur:
        view = view.filter(ImageFilter.GaussianBlur(deviation))
    pixels = np.asarray(view)
    return channels_first(pixels[:, ::-1] if distortion.flip and mirrored else pixels)


def _part(
    size: tuple[int, int], least: float, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of a random part, no wider or higher than the image."""
    pixels = rng.uniform(least, 1) * size[0] * size[1]
    ratio = np.exp(rng.uniform(-1, 1) * np.log(_RATIO))
    ratio = min(max(ratio, pixels / size[1] ** 2), size[0] ** 2 / pixels)  # or it would not fit
    width, height = (pixels * ratio) ** 0.5, (pixels / ratio) ** 0.5
    left, top = (
        rng.random() * max(whole - part, 0)
        for whole, part in zip(size, (width, height), strict=True)
    )
    return left, top, min(left + width, size[0]), min(top + height, size[1])


def _other_colours(
    view: Image.Image, distortion: Distortion, rng: np.random.Generator
) -> Image.Image:
    jittered, change, grey = rng.random(), rng.uniform(-1, 1, 4), rng.random()
    if distortion.colour and jittered < _JITTERED:
        factors = 1 + distortion.colour * np.array(_JITTER) * change[:3]
        view = ImageEnhance.Brightness(view).enhance(float(factors[0]))
        view = ImageEnhance.Contrast(view).enhance(float(factors[1]))
        view = ImageEnhance.Color(view).enhance(float(factors[2]))
        hue, saturation, value = view.convert("HSV").split()
        turn = round(256 * distortion.colour * _HUE * change[3])
        hue = hue.point([(level + turn) % 256 for level in range(256)])
        view = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    return view.convert("L").convert("RGB") if grey < distortion.grey else view
