"""Every picture becomes upright RGB, every other file becomes one clear refusal."""

import io
import os
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_cl.errors import ImageError
from edge_cl.vision.frames import (
    DRAFT_SIDE_PX,
    FORMATS,
    MAX_FILE_BYTES,
    ORIENTATION_TAG,
    decode_image,
    image_hash,
    read_bytes,
    read_image,
)

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def corners() -> Image.Image:
    """A 48 x 32 picture with a colour in each corner, so that any turn shows."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :24], pixels[:16, 24:], pixels[16:, :24], pixels[16:, 24:] = RED, GREEN, BLUE, WHITE
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    memory = io.BytesIO()
    image.save(memory, kind, **options)
    return memory.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_claiming(width: int, height: int, rows: bytes = b"") -> bytes:
    """A grey PNG whose header claims a size; the body holds what `rows` expands to."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def near(pixel: Any, colour: tuple[int, int, int], tolerance: int = 12) -> bool:
    return bool(np.abs(np.subtract(pixel, colour)).max() <= tolerance)


def refuses(data: bytes, *words: str) -> str:
    with pytest.raises(ImageError) as refusal:
        decode_image(data, "shot.jpg")
    message = str(refusal.value)
    assert message.startswith("shot.jpg: ") and "\n" not in message
    for word in words:
        assert word in message
    return message


# ---- pictures


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
def test_each_usual_format_reads_as_rgb(kind: str) -> None:
    image = decode_image(encoded(corners(), kind), f"corners.{kind.lower()}")
    assert image.mode == "RGB" and image.size == (48, 32)
    for place, colour in (((4, 4), RED), ((44, 4), GREEN), ((4, 28), BLUE), ((44, 28), WHITE)):
        assert near(image.getpixel(place), colour)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_undone(kind: str, orientation: int) -> None:
    # EXIF says how to turn the stored rows; store the inverse turn of an upright picture.
    stored_turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = corners().transpose(stored_turn[orientation]) if orientation > 1 else corners()
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    image = decode_image(encoded(stored, kind, exif=exif), "turned")
    assert image.size == (48, 32)
    for place, colour in (((4, 4), RED), ((44, 4), GREEN), ((4, 28), BLUE), ((44, 28), WHITE)):
        assert near(image.getpixel(place), colour)


def test_damaged_exif_leaves_the_picture_readable() -> None:
    data = encoded(corners(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff" + b"\x07" * 40)
    assert decode_image(data, "odd.jpg").size == (48, 32)


def test_an_orientation_outside_the_table_is_ignored() -> None:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 99
    assert near(decode_image(encoded(corners(), "JPEG", exif=exif), "odd.jpg").getpixel((4, 4)), RED)


def test_palette_with_a_transparent_colour_lies_over_black() -> None:
    image = Image.new("P", (8, 4))
    image.putpalette([*RED, *GREEN])
    image.paste(1, (4, 0, 8, 4))
    for options in ({"transparency": 1}, {"transparency": b"\xff\x00"}):
        shown = decode_image(encoded(image, "PNG", **options), "palette.png")
        assert shown.getpixel((1, 1)) == RED and shown.getpixel((6, 1)) == BLACK


def test_palette_without_transparency_keeps_its_colours() -> None:
    image = Image.new("P", (8, 4))
    image.putpalette([*RED, *GREEN])
    assert decode_image(encoded(image, "PNG"), "palette.png").getpixel((1, 1)) == RED


def test_alpha_is_composited_over_black() -> None:
    half = Image.new("RGBA", (4, 4), (200, 100, 50, 128))
    assert near(decode_image(encoded(half, "PNG"), "half.png").getpixel((1, 1)), (100, 50, 25), 1)
    grey = Image.new("LA", (4, 4), (200, 64))
    assert near(decode_image(encoded(grey, "PNG"), "grey.png").getpixel((1, 1)), (50, 50, 50), 1)


def test_a_transparent_colour_of_an_rgb_png_lies_over_black() -> None:
    data = encoded(corners(), "PNG", transparency=RED)
    image = decode_image(data, "keyed.png")
    assert image.getpixel((4, 4)) == BLACK and image.getpixel((44, 4)) == GREEN


def test_cmyk_jpeg_becomes_rgb() -> None:
    image = decode_image(encoded(corners().convert("CMYK"), "JPEG", quality=95), "print.jpg")
    assert image.mode == "RGB" and near(image.getpixel((4, 4)), RED, 25)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_range(kind: str) -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)[np.newaxis].repeat(4, 0)
    image = decode_image(encoded(Image.fromarray(ramp), kind), "deep")
    assert np.asarray(image)[0, :, 0].tolist() == list(range(256))


def test_dim_sixteen_bit_grey_stays_dim() -> None:
    dim = np.full((4, 4), 257 * 10, np.uint16)
    assert decode_image(encoded(Image.fromarray(dim), "PNG"), "dim.png").getpixel((0, 0)) == (10, 10, 10)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.0, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0, 32768, 65535]], np.int32), [0, 128, 255]),
        (np.array([[0, 500_000, 1_000_000]], np.int32), [0, 128, 255]),
    ],
)
def test_float_and_wide_integer_tiffs_are_scaled(values: np.ndarray, expected: list[int]) -> None:
    shown = decode_image(encoded(Image.fromarray(values), "TIFF"), "science.tif")
    assert np.abs(np.subtract(np.asarray(shown)[0, :, 1], expected, dtype=int)).max() <= 1


def test_a_float_picture_with_infinities_is_refused() -> None:
    values = np.array([[0.0, np.inf]], np.float32)
    with pytest.raises(ImageError, match="not numbers"):
        decode_image(encoded(Image.fromarray(values), "TIFF"), "science.tif")


def test_one_bit_and_grey_pictures_become_rgb() -> None:
    for mode in ("1", "L"):
        image = decode_image(encoded(Image.new(mode, (4, 4), 1 if mode == "1" else 255), "PNG"), mode)
        assert image.mode == "RGB" and image.getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_is_the_picture(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert near(decode_image(data, "moving").getpixel((8, 8)), RED)


def test_a_phone_jpeg_of_several_pictures_gives_the_first() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN)]
    data = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert near(decode_image(data, "phone.jpg").getpixel((8, 8)), RED)


def test_a_huge_jpeg_is_decoded_smaller_and_a_usual_one_is_not() -> None:
    side = 4 * DRAFT_SIDE_PX
    huge = decode_image(encoded(Image.new("RGB", (side + 512, side), RED), "JPEG"), "huge.jpg")
    assert huge.height == DRAFT_SIDE_PX and near(huge.getpixel((9, 9)), RED)
    usual = encoded(Image.new("RGB", (2 * DRAFT_SIDE_PX - 1, 1500), RED), "JPEG")
    assert decode_image(usual, "usual.jpg").size == (2 * DRAFT_SIDE_PX - 1, 1500)


def test_every_real_picture_of_the_models_folder_reads(models_dir: Path) -> None:
    pictures = [p for p in models_dir.rglob("*") if p.suffix in {".jpg", ".bmp"}]
    assert len(pictures) >= 9
    for path in pictures:
        with Image.open(path) as direct:
            plain = np.asarray(direct.convert("RGB"))
        assert np.array_equal(np.asarray(read_image(path)), plain)


def test_the_hash_is_that_of_the_bytes() -> None:
    assert image_hash(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# ---- refusals


def test_bytes_that_are_no_picture_are_refused() -> None:
    refuses(b"", "empty")
    refuses(b"hello, I am a text renamed to .jpg\n" * 50, "not a picture")
    refuses(b"\xff\xd8\xff", "shot.jpg")
    refuses(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_picture_that_was_cut_off_is_refused(
    kind: str, part: float, capfd: pytest.CaptureFixture[str]
) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, kind)
    refuses(data[: int(len(data) * part)])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "jpeg", "packbits"])
def test_a_damaged_compressed_tiff_is_refused_in_silence(
    compression: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data = encoded(corners(), "TIFF", compression=compression)
    for at in range(8, len(data), 7):
        try:
            decode_image(data[:at] + b"\xff\x00\xff" + data[at + 3 :], "scan.tif")
        except ImageError:
            pass
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("width", "height"), [(8001, 8001), (60_000, 60_000), (2**31 - 1, 2**31 - 1), (70_000_000, 1)]
)
def test_a_header_that_claims_too_many_pixels_is_refused_before_decoding(width: int, height: int) -> None:
    refuses(png_claiming(width, height), "pixels", "make it smaller")


def test_a_decompression_bomb_is_refused() -> None:
    bomb = png_claiming(30_000, 30_000, bytes(30_001 * 3000))
    assert len(bomb) < 200_000
    refuses(bomb, "too many pixels", "make it smaller")


def test_a_text_chunk_bomb_is_refused() -> None:
    bomb = png_chunk(b"zTXt", b"note\x00\x00" + zlib.compress(bytes(80_000_000)))
    data = png_claiming(4, 4, bytes(20))
    refuses(data[:33] + bomb + data[33:], "damaged")


def test_a_picture_of_no_width_is_refused() -> None:
    refuses(png_claiming(0, 4))


def test_a_file_beyond_the_size_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "endless.jpg"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ImageError, match=r"endless.jpg: has \d+ bytes, more than"):
        read_image(path)


def test_things_that_are_not_files_are_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, Path("/dev/zero")):
        with pytest.raises(ImageError, match="is not a plain file"):
            read_image(path)


def test_missing_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    for name in ("absent.jpg", "loop.jpg", "nul\0.jpg"):
        with pytest.raises(ImageError, match="cannot be opened"):
            read_bytes(tmp_path / name)


def test_a_name_with_a_line_break_stays_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "two\nlines.jpg"
    path.write_bytes(b"")
    with pytest.raises(ImageError) as refusal:
        read_image(path)
    assert "\n" not in str(refusal.value) and "two" in str(refusal.value)


SEEDS = [encoded(corners(), kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8))
def test_damaged_bytes_give_a_picture_or_a_refusal_and_nothing_else(
    data: bytes, changes: list[tuple[int, int]]
) -> None:
    damaged = bytearray(data)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    try:
        image = decode_image(bytes(damaged), "damaged")
    except ImageError as refusal:
        assert "\n" not in str(refusal)
    else:
        assert image.mode == "RGB" and min(image.size) > 0


def test_several_threads_may_decode_at_once() -> None:
    data = encoded(corners(), "PNG")
    sizes: list[tuple[int, int]] = []
    threads = [threading.Thread(target=lambda: sizes.append(decode_image(data, "t").size)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == [(48, 32)] * 8


def test_only_the_decoders_of_the_list_are_ever_loaded() -> None:
    script = (
        "import sys; from edge_cl.vision.frames import decode_image\n"
        "try: decode_image(b'%!PS-Adobe-3.0 EPSF-3.0', 'drawing.eps')\n"
        "except Exception as error: print(type(error).__name__)\n"
        "print([m for m in ('Eps', 'Pdf', 'Fpx') if f'PIL.{m}ImagePlugin' in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split("\n")[:2] == ["ImageError", "[]"] and "EPS" not in FORMATS
