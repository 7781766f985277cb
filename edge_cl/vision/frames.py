"""Reads pictures safely: whatever the bytes, the answer is an upright RGB picture or one clear refusal."""

import hashlib
import io
import logging
import os
import warnings
from pathlib import Path
from threading import Lock

import numpy as np

# Importing a plugin registers it. Asking Pillow for a format that is not registered would load all of its
# forty decoders, among them those that start other programs (EPS).
from PIL import (  # noqa: F401
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from edge_cl.errors import ImageError
from edge_cl.vision.chatter import native_chatter_held
from edge_cl.vision.files import one_line, open_plain, shown

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the one decoder that prints on standard error
MAX_FILE_BYTES = 64 * 1024 * 1024  # a 50 MP camera's largest JPEG is about 30 MB
MAX_PIXELS = 64_000_000  # 192 MB as RGB: the most that a 512 MB board decodes without being killed
DRAFT_SIDE_PX = 1024  # huge JPEGs are decoded at 1/2, 1/4, 1/8 while the short side stays above this
ORIENTATION_TAG = 0x0112

# EXIF 2.32, table of tag 0x0112: how the stored rows must be turned to stand upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow logs what it refuses; without a handler Python would print that beside our own line.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_decoding = Lock()  # Python's warning filters belong to the whole process


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """Return the picture in a file: RGB, upright, the first frame of an animation.

    Raises:
        ImageError: not a plain file, unreadable, empty, truncated, too large, not a picture.
    """
    return decode_image(read_bytes(path), Path(path).name)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a picture file, within MAX_FILE_BYTES, without waiting on pipes or devices.

    Raises:
        ImageError: not a plain file, unreadable, empty, too large.
    """
    file, size_bytes = open_plain(Path(path), ImageError)
    with file:
        name = shown(Path(path).name)
        _check_size(size_bytes, name)
        try:
            return file.read(MAX_FILE_BYTES)
        except OSError as error:
            raise ImageError(f"{name}: cannot be read ({one_line(error)}): check the storage") from error


def decode_image(data: bytes, name: str) -> Image.Image:
    """Return the picture in some bytes: RGB, upright, the first frame of an animation.

    Raises:
        ImageError: empty, truncated, too large, not a picture of a kind in FORMATS.
    """
    name = shown(name)
    _check_size(len(data), name)
    if data[:4] not in TIFF_STARTS:
        return _decoded_quietly(data, name)
    with native_chatter_held(lambda line: True):
        return _decoded_quietly(data, name)


def image_hash(data: bytes) -> str:
    """Return the sha256 of a picture's bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _decoded_quietly(data: bytes, name: str) -> Image.Image:
    with _decoding, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about odd headers; what cannot be read raises
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return _as_rgb(_upright(_decoded(data, name)), name)
        except ImageError:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ImageError(
                f"{name}: has too many pixels (at most {MAX_PIXELS}): make it smaller"
            ) from error
        except Image.UnidentifiedImageError as error:
            raise ImageError(f"{name}: is not a picture of a known kind: use JPEG, PNG or WebP") from error
        except Exception as error:  # decoders raise nearly anything on hostile bytes; nothing of it may pass
            raise ImageError(f"{name}: is damaged or cut off ({one_line(error)}): copy it again") from error


def _decoded(data: bytes, name: str) -> Image.Image:
    """Decode the first frame, once the header says that it fits."""
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width} x {image.height}"
        raise ImageError(f"{name}: has {size} pixels, more than {MAX_PIXELS} in all: make it smaller")
    # Only JPEG acts on this, and only where both sides are at least twice DRAFT_SIDE_PX.
    image.draft(None, (DRAFT_SIDE_PX, DRAFT_SIDE_PX))
    image.load()
    return image


def _upright(image: Image.Image) -> Image.Image:
    """Turn the picture as its EXIF orientation says; damaged EXIF data does not make a picture unreadable."""
    try:
        orientation = image.getexif().get(ORIENTATION_TAG, 1)
        turn = UPRIGHT.get(orientation)
    except Exception:  # the EXIF reader raises many kinds on hostile bytes
        return image
    return image if turn is None else image.transpose(turn)


def _as_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.has_transparency_data:
        return _over_black(image)
    if image.mode.startswith("I;16") or image.mode in {"I", "F"}:
        return Image.fromarray(_as_bytes(np.asarray(image), name)).convert("RGB")
    return image.convert("RGB")


def _over_black(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    canvas = Image.new("RGB", image.size)
    canvas.paste(rgba, mask=rgba.getchannel("A"))
    return canvas


def _as_bytes(values: np.ndarray, name: str) -> np.ndarray:
    """Scale deep grey values to 0..255: (H, W) of integers or floats to (H, W) uint8.

    Integers up to 65535 are 16-bit grey; floats up to 1 are fractions. Beyond that no convention exists, and
    the values are stretched from the smallest to the largest.
    """
    if not np.isfinite(values).all():
        raise ImageError(f"{name}: holds values that are not numbers: export it again")
    low, high = float(values.min()), float(values.max())
    usual = 1.0 if values.dtype.kind == "f" and high <= 1.0 else 65535.0
    if values.dtype.kind == "f" and 1.0 < high <= 255.0:
        usual = 255.0
    if low >= 0 and high <= usual:
        low, high = 0.0, usual
    return np.round((values.astype(np.float32) - low) * (255.0 / max(high - low, 1e-30))).astype(np.uint8)


def _check_size(size_bytes: int, name: str) -> None:
    if size_bytes == 0:
        raise ImageError(f"{name}: is empty: copy it again")
    if size_bytes > MAX_FILE_BYTES:
        raise ImageError(f"{name}: has {size_bytes} bytes, more than {MAX_FILE_BYTES}: make it smaller")
