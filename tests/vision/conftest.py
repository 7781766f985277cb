"""What the vision tests share: a real backbone file, seeded pixels, pictures with something on them."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def extractor_path(models_dir: Path) -> Path:
    return models_dir / "coral" / "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"


@pytest.fixture(scope="session")
def small_path(models_dir: Path) -> Path:
    """The quickest real image model at hand."""
    return models_dir / "mlperf_tiny" / "pretrainedResnet_quant.tflite"


@pytest.fixture(scope="session")
def parrot(models_dir: Path) -> Image.Image:
    with Image.open(models_dir / "coral" / "parrot.jpg") as image:
        return image.convert("RGB")


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (224, 224, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real TFLite delegate, compiled here; plugin.c says what it does."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler here: the delegate plugin cannot be built")
    library = tmp_path_factory.mktemp("plugin") / "libtestplugin.so"
    source = Path(__file__).with_name("plugin.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return library


@pytest.fixture(scope="session")
def edgetpu_library(plugin: Path) -> Path:
    """The same delegate under the name of the Edge TPU's."""
    library = plugin.with_name("libedgetpu.so.1")
    shutil.copy(plugin, library)
    return library


@pytest.fixture(scope="session")
def compiled_path(extractor_path: Path) -> Path:
    """The real extractor as the Edge TPU compiler left it."""
    return extractor_path.with_name(f"{extractor_path.stem}_edgetpu.tflite")
