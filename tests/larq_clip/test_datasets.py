"""The embedded images and the reader of IDX folders."""

from __future__ import annotations

import gzip
import lzma
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from larq_clip.datasets import FASHION_MNIST_CLASSES, encode, fashion_mnist_subset, load_idx_folder
from larq_clip.datasets.embedded import FOLDER, select
from larq_clip.datasets.idx import format_idx, parse_idx

NAMES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


@pytest.fixture(scope="module")
def subset():
    return fashion_mnist_subset()


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (7, 4, 5), np.uint8),
        "y_train": rng.integers(0, 10, 7, np.uint8),
        "x_test": rng.integers(0, 256, (3, 4, 5), np.uint8),
        "y_test": rng.integers(0, 10, 3, np.uint8),
    }


def write_folder(folder: Path, arrays: dict[str, np.ndarray], names: dict[str, str] = NAMES, suffix: str = "") -> Path:
    compress = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[suffix]
    for key, array in arrays.items():
        (folder / (names[key] + suffix)).write_bytes(compress(format_idx(array)))
    return folder


def assert_same(loaded, arrays):
    (x_train, y_train), (x_test, y_test) = loaded
    for key, array in {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}.items():
        assert array.dtype == np.uint8 and array.flags.writeable
        np.testing.assert_array_equal(array, arrays[key])


def test_subset_has_the_documented_shapes_and_nearly_balanced_classes(subset):
    (x_train, y_train), (x_test, y_test) = subset
    assert x_train.shape == (10_000, 28, 28) and x_test.shape == (2_000, 28, 28)
    assert y_train.shape == (10_000,) and y_test.shape == (2_000,)
    assert {array.dtype for array in (x_train, y_train, x_test, y_test)} == {np.dtype(np.uint8)}
    train, test = np.bincount(y_train), np.bincount(y_test)
    assert len(train) == len(test) == len(FASHION_MNIST_CLASSES) == 10
    assert (train.min(), train.max(), test.min(), test.max()) == (950, 1049, 178, 216)


def test_subset_is_ordered_by_digest_so_that_its_choice_does_not_depend_on_the_order_of_the_set(subset):
    shuffled = np.random.default_rng(1).permutation(2_000)
    images, labels = subset[1]
    chosen = select(images[shuffled], labels[shuffled], 100)
    np.testing.assert_array_equal(chosen[0], images[:100])
    np.testing.assert_array_equal(chosen[1], labels[:100])


def test_train_and_test_images_are_disjoint(subset):
    (x_train, _), (x_test, _) = subset
    seen = {image.tobytes() for image in x_train}
    assert not any(image.tobytes() in seen for image in x_test)


def test_embedded_files_stay_small_and_bring_their_licence():
    sizes = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert set(sizes) == {name + ".xz" for name in NAMES.values()} | {"LICENSE"}
    assert max(sizes.values()) < 4 * 2**20 and sum(sizes.values()) < 4.5 * 2**20
    licence = (FOLDER / "LICENSE").read_text(encoding="utf-8")
    assert "MIT License" in licence and "2017 Zalando SE" in licence


def test_damaged_subset_is_refused(subset, tmp_path, monkeypatch):
    (x_train, y_train), (x_test, y_test) = subset
    x_test = x_test.copy()
    x_test[1999, 27, 27] ^= 1
    changed = {"x_train": x_train[:1], "y_train": y_train[:1], "x_test": x_test, "y_test": y_test}
    monkeypatch.setattr("larq_clip.datasets.embedded.FOLDER", write_folder(tmp_path, changed))
    with pytest.raises(ValueError, match="do not have the checksum .* reinstall"):
        fashion_mnist_subset()


def test_datasets_do_not_import_tensorflow():
    code = "import sys, larq_clip.datasets; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
@pytest.mark.parametrize("prefix", ["", "fashion-"])
def test_folder_is_read_plain_and_compressed(tmp_path, arrays, prefix, suffix):
    names = {key: prefix + name for key, name in NAMES.items()}
    assert_same(load_idx_folder(write_folder(tmp_path, arrays, names, suffix)), arrays)


def test_folder_is_read_with_the_dotted_names_too(tmp_path, arrays):
    names = {key: name.replace("-idx", ".idx") for key, name in NAMES.items()}
    assert_same(load_idx_folder(str(write_folder(tmp_path, arrays, names))), arrays)


def test_missing_folder_and_missing_file_are_named(tmp_path, arrays):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        load_idx_folder(tmp_path / "nowhere")
    write_folder(tmp_path, arrays)
    (tmp_path / NAMES["y_test"]).unlink()
    with pytest.raises(FileNotFoundError, match="has no t10k-labels-idx1-ubyte, nor one compressed"):
        load_idx_folder(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an IDX file: it starts with nothing"),
        (b"<html>not found</html>", "is not an IDX file: it starts with 3c 68 74 6d"),
        (bytes([0, 0, 8, 1, 0, 0, 0, 1, 5, 0, 0, 0, 0, 0, 0, 0]), "type 8 with 1 axes; accepted is type 8"),
        (bytes([0, 0, 13, 3]) + bytes(12), "type 13 with 3 axes"),
        (bytes([0, 0, 8, 3, 0, 0, 0, 7, 0, 0, 0, 4, 0, 0, 0, 5, 1]), r"1 bytes of data; its header says 140"),
    ],
)
def test_damaged_file_is_named(tmp_path, arrays, content, message):
    write_folder(tmp_path, arrays)
    (tmp_path / NAMES["x_train"]).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_idx_folder(tmp_path)
    assert NAMES["x_train"] in str(caught.value)


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"\0\0\0" + data[3:]])
def test_damaged_compression_is_named(tmp_path, arrays, suffix, damage):
    write_folder(tmp_path, arrays, suffix=suffix)
    path = tmp_path / (NAMES["x_test"] + suffix)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"t10k-images.* cannot be decompressed .* download it again"):
        load_idx_folder(tmp_path)


def test_disagreeing_numbers_and_sizes_are_errors(tmp_path, arrays):
    write_folder(tmp_path, arrays | {"y_train": arrays["y_train"][:5]})
    with pytest.raises(ValueError, match="has 7 images and .* has 5 labels"):
        load_idx_folder(tmp_path)
    write_folder(tmp_path, arrays | {"x_test": arrays["x_test"][:, :3]})
    with pytest.raises(ValueError, match=r"training images have \(4, 5\) pixels, the test images \(3, 5\)"):
        load_idx_folder(tmp_path)
    write_folder(tmp_path, arrays | {"x_test": arrays["x_test"][:0], "y_test": arrays["y_test"][:0]})
    with pytest.raises(ValueError, match="has 0 images .* at least one"):
        load_idx_folder(tmp_path)


def test_idx_round_trip_and_dtype_check():
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.testing.assert_array_equal(parse_idx(format_idx(values), 3, "here"), values)
    strided = values.transpose(2, 0, 1)
    np.testing.assert_array_equal(parse_idx(format_idx(strided), 3, "here"), strided)
    with pytest.raises(ValueError, match="dtype int64"):
        format_idx(values.astype(np.int64))


def test_encoder_writes_files_that_decode_to_the_subset(subset, tmp_path):
    source, output = tmp_path / "source", tmp_path / "output"
    source.mkdir()
    output.mkdir()
    for path in FOLDER.glob("*.xz"):
        shutil.copy(path, source)
    fast = [{"id": lzma.FILTER_LZMA2, "preset": 0}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "FILTERS", fast)
        sizes = encode.encode(source, output)
    assert set(sizes) == {name + ".xz" for name in NAMES.values()}
    for ours, theirs in zip(load_idx_folder(output), subset, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


def test_encoder_refuses_another_set(tmp_path, arrays, capsys):
    write_folder(tmp_path, arrays)
    assert encode.main([str(tmp_path), str(tmp_path)]) == 2
    assert "does not hold the images of Fashion-MNIST" in capsys.readouterr().err
    assert encode.main([]) == 2
