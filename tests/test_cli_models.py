"""The command line on Keras models: what is written, what is refused, what runs code, and models of larq-zoo.

Commands run in this process, since TensorFlow takes seconds to import.
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support import IMAGE, dyadic_images, run_program

import larq_clip
from larq_clip.cli import main
from larq_clip.cli.trust import code_in_config
from larq_clip.converter import reader


@pytest.fixture
def folder(tmp_path, monkeypatch, keras_model, model_bytes):
    """The working folder, with the model, its file and images."""
    monkeypatch.chdir(tmp_path)
    keras_model.save("model.h5")
    Path("model.lcb").write_bytes(model_bytes)
    np.save("images.npy", dyadic_images(3))
    return tmp_path


@pytest.fixture
def command(capsys):
    """Runs a command line: exit code, standard output, standard error without Keras's warnings."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(list(arguments))
        said = capsys.readouterr()
        lines = [line for line in said.err.splitlines() if "larq-clip:" in line]
        return stop.value.code or 0, said.out, "\n".join(lines)

    return run


def wrong_bytes(data: bytes) -> bytes:
    """The file with all thresholds of its first binary layer on the other side."""
    import dataclasses

    from larq_clip.converter import ir, reader, writer

    graph = reader.read(data)
    op = next(op for op in graph.ops if op.type == "BinaryConv2D")
    new = dataclasses.replace(op, thresholds=-op.thresholds - 1)
    ops = [new if other is op else other for other in graph.ops]
    return writer.write(ir.Graph.build(graph.name, graph.tensors.values(), ops, graph.inputs, graph.outputs))


# ---- convert and verify ---------------------------------------------------------------------------------------------


def test_convert_verifies_and_says_what_it_made(folder, command, model_bytes):
    code, out, err = command("convert", "model.h5", "-o", "new.lcb")
    assert code == 0 and not err
    assert Path("new.lcb").read_bytes() == model_bytes
    size, ops, verified = out.splitlines()
    assert size.startswith(f"new.lcb: {len(model_bytes):,} bytes (") and "times smaller than float32" in size
    assert "3 BinaryConv2D" in ops and ops.startswith("10 ops: ")
    assert verified.startswith("verified: ") and "equal Keras's on 2 images" in verified
    assert command("convert", "model.h5", "-o", "new.lcb", "--samples", "1")[1].splitlines()[2].endswith("rounding")
    assert "1 image," in command("convert", "model.h5", "-o", "new.lcb", "--samples", "1")[1]


def test_convert_writes_nothing_that_is_wrong_unless_told(folder, command, model_bytes, monkeypatch):
    monkeypatch.setattr("larq_clip.converter.convert_keras_model", lambda model: wrong_bytes(model_bytes))
    Path("new.lcb").write_bytes(b"precious")
    code, out, err = command("convert", "model.h5", "-o", "new.lcb")
    assert code == 2 and not out
    assert "quant_conv2d" in err and "Keras computes" in err and "channel" in err
    assert "Nothing was written; --no-verify writes the file as it is" in err
    assert Path("new.lcb").read_bytes() == b"precious"
    code, out, _ = command("convert", "model.h5", "-o", "new.lcb", "--no-verify")
    assert code == 0 and out.splitlines()[2] == "not verified"
    assert Path("new.lcb").read_bytes() == wrong_bytes(model_bytes)


def test_verify(folder, command, model_bytes):
    code, out, err = command("verify", "model.h5", "model.lcb")
    assert code == 0 and not err, err
    assert out.startswith("model.lcb computes what model.h5 computes, layer by layer: ") and "on 4 images" in out
    assert "constants of the file: equal to what the model gives" in out
    code, out, _ = command("verify", "model.h5", "model.lcb", "--input", "images.npy", "--samples", "2")
    assert code == 0 and "on 2 images" in out
    code, out, _ = command("verify", "model.h5", "model.lcb", "--input", "images.npy")
    assert code == 0 and "on 3 images" in out and "up to float32 rounding" not in out.splitlines()[0].split("images")[0]


def test_verify_names_what_is_wrong(folder, command, model_bytes):
    Path("wrong.lcb").write_bytes(wrong_bytes(model_bytes))
    code, out, err = command("verify", "model.h5", "wrong.lcb")
    assert code == 2 and not out and len(err.splitlines()) == 1
    for word in ("layer 'quant_conv2d", "image 0, row ", "channel ", "Keras computes ", "the C runtime computes "):
        assert word in err


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["model.h5", "none.lcb"], "none.lcb"),
        (["none.h5", "model.lcb"], "none.h5 does not exist"),
        (["model.h5", "images.npy"], "images.npy: not a larq_clip model file"),
        (["model.h5", "model.lcb", "--input", "model.lcb"], "model.lcb is not a .npy file"),
        (["model.h5", "model.lcb", "--input", "wrong.npy"], "accepted are real numbers of shape (images, 12, 12, 3)"),
        (["model.h5", "model.lcb", "--input", "images.npy", "--input", "images.npy"], "2 arrays of images were given"),
        (["model.h5", "model.lcb", "--samples", "0"], "0 is not in the range"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_of_verify(arguments, words, folder, command):
    np.save("wrong.npy", np.zeros((2, 5), np.float32))
    code, out, err = command("verify", *arguments)
    assert code == 2 and not out and len(err.splitlines()) == 1 and words in err


def test_the_input_is_not_overwritten(folder, command, keras_model):
    keras_model.save("saved_model")
    Path("link.lcb").hardlink_to("model.h5")
    Path("symbolic.lcb").symlink_to("model.h5")
    before = Path("model.h5").read_bytes(), Path("saved_model/saved_model.pb").read_bytes()
    for model, output in (
        ("model.h5", "model.h5"),
        ("model.h5", "./model.h5"),
        ("model.h5", "link.lcb"),
        ("model.h5", "symbolic.lcb"),
        ("saved_model", "saved_model/saved_model.pb"),
        ("saved_model", "saved_model/assets/new.lcb"),
    ):
        code, _, err = command("convert", model, "-o", output)
        assert code == 2 and "would overwrite the input" in err, output
    code, _, err = command("convert", "zoo:QuickNet", "--weights", "model.h5", "-o", "model.h5")
    assert code == 2 and "would overwrite the input" in err
    assert before == (Path("model.h5").read_bytes(), Path("saved_model/saved_model.pb").read_bytes())


# ---- Files that hold code -------------------------------------------------------------------------------------------


def writes_marker(x):
    """Runs when Keras builds the layer."""
    import pathlib

    pathlib.Path("marker").write_text("code ran")
    return x


def with_lambda(function):
    from larq_clip._keras import keras, lq

    x = keras.Input((4, 4, 3), name="image")
    y = lq.layers.QuantConv2D(8, 3, name="conv", kernel_quantizer="ste_sign")(x)
    return keras.Model(x, keras.layers.Lambda(function, name="sneaky")(y))


@pytest.mark.parametrize("name", ["model.h5", "model.keras", "saved_model"])
def test_code_runs_only_if_trusted(name, folder, command):
    Path("model.h5").unlink()
    source = "lambda x: (__import__('pathlib').Path('marker').write_text('code ran'), x)[1]"
    with_lambda(eval(source)).save(name)
    for each in ("marker", "out.lcb"):
        Path(each).unlink(missing_ok=True)
    for arguments in (["convert", name, "-o", "out.lcb"], ["verify", name, "model.lcb"]):
        code, _, err = command(*arguments)
        assert code == 2 and len(err.splitlines()) == 1
        assert "layer 'sneaky' (Lambda) is Python code. Loading it executes that code" in err and "--trust" in err
        assert not Path("marker").exists() and not Path("out.lcb").exists()
    command("convert", name, "-o", "out.lcb", "--trust")
    assert Path("marker").read_text() == "code ran"


def test_a_module_is_imported_only_if_trusted(folder, command, keras_model):
    Path("modules").mkdir()
    Path("modules/evil_module.py").write_text("import pathlib\npathlib.Path('marker').write_text('imported')\n")
    sys.path.insert(0, "modules")
    try:
        keras_model.save("model.keras")
        with zipfile.ZipFile("model.keras") as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
        config = json.loads(contents["config.json"])
        config.update(module="evil_module", class_name="Network", registered_name="evil>Network")
        contents["config.json"] = json.dumps(config).encode()
        with zipfile.ZipFile("evil.keras", "w") as archive:
            for name, data in contents.items():
                archive.writestr(name, data)
        code, _, err = command("convert", "evil.keras", "-o", "out.lcb")
        assert code == 2 and f"layer {keras_model.name!r} (Network) is of the Python module 'evil_module'" in err
        assert not Path("marker").exists()
        assert command("convert", "evil.keras", "-o", "out.lcb", "--trust")[0] == 2
        assert Path("marker").read_text() == "imported"
    finally:
        sys.path.remove("modules")
        sys.modules.pop("evil_module", None)


def layer(class_name: str, **config) -> dict:
    return {"class_name": class_name, "config": {"name": "layer_1", **config}}


@pytest.mark.parametrize(
    "part, found",
    [
        (
            layer("Lambda", function="f", function_type="function", module="os"),
            "layer 'layer_1' (Lambda) is Python code",
        ),
        ({"class_name": "__lambda__", "config": {"value": ["4wE="]}}, "layer 'outer' (__lambda__) is Python code"),
        (layer("TFSMLayer", filepath="/x"), "layer 'layer_1' (TFSMLayer) is another SavedModel"),
        (layer("TFOpLambda", function="io.write_file"), "layer 'layer_1' (TFOpLambda) calls tf.io.write_file"),
        (layer("TFOpLambda", function="py_function"), "layer 'layer_1' (TFOpLambda) calls tf.py_function"),
        (layer("TFOpLambda", function="compat.v1.load_op_library"), "calls tf.compat.v1.load_op_library"),
        (layer("TFOpLambda"), "layer 'layer_1' (TFOpLambda) calls tf.None"),
        (layer("ClassMethod", cls_ref="data.Dataset"), "is a call of a method"),
        ({**layer("system"), "module": "os"}, "layer 'layer_1' (system) is of the Python module 'os'"),
        ({**layer("Popen"), "module": "kerasx.y"}, "is of the Python module 'kerasx.y'"),
        (layer("TFOpLambda", function="math.reduce_mean"), None),
        (layer("TFOpLambda", function="compat.v1.concat"), None),
        (layer("SlicingOpLambda", function="__operators__.getitem"), None),
        ({**layer("Dense"), "module": "keras.layers"}, None),
        ({**layer("Functional"), "module": "tf_keras.src.engine.functional"}, None),
        ({**layer("SteSign"), "module": "larq.quantizers"}, None),
        ({"class_name": "function", "module": "builtins", "config": "relu"}, None),
        (layer("MyLayer"), None),  # without a module it must be registered
    ],
    ids=lambda value: (
        value["class_name"] + value["config"].get("function", "")
        if isinstance(value, dict) and isinstance(value["config"], dict)
        else ""
    ),
)
def test_what_counts_as_code(part, found):
    outer = {"class_name": "Functional", "config": {"name": "outer", "layers": [part, layer("Dense", activation=part)]}}
    seen = list(code_in_config(outer))
    assert bool(seen) == bool(found)
    assert all(found in text for text in seen[:1])


def test_a_damaged_configuration(folder, command):
    with zipfile.ZipFile("bad.keras", "w") as archive:
        archive.writestr("config.json", "{not json")
    code, _, err = command("convert", "bad.keras", "-o", "out.lcb")
    assert code == 2 and "the configuration of its layers is damaged" in err
    Path("saved").mkdir()
    Path("saved/saved_model.pb").write_bytes(b"\xff" * 40)
    code, _, err = command("convert", "saved", "-o", "out.lcb")
    assert code == 2 and "saved_model.pb is damaged" in err


def test_a_resource_of_a_saved_model_counts_as_code(folder, command):
    from larq_clip._keras import tf

    module = tf.Module()
    keys = tf.lookup.KeyValueTensorInitializer(tf.constant([1]), tf.constant([2]))
    module.table = tf.lookup.StaticHashTable(keys, 0)
    tf.saved_model.save(module, "table")
    code, _, err = command("convert", "table", "-o", "out.lcb")
    assert code == 2 and "a resource, such as a table, has a graph that initializes it" in err


# ---- larq-zoo -------------------------------------------------------------------------------------------------------


def tiny(input_shape=None, weights="imagenet", **_):
    """A model like those of larq-zoo, which downloads its weights."""
    from larq_zoo.core import utils

    from larq_clip._keras import keras, lq

    quantizers = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}
    x = keras.Input(input_shape or IMAGE)
    y = keras.layers.BatchNormalization(name="norm")(lq.layers.QuantConv2D(8, 3, name="first")(x))
    model = keras.Model(x, lq.layers.QuantConv2D(4, 3, name="second", **quantizers)(y), name="tiny")
    if weights == "imagenet":
        model.load_weights(utils.download_pretrained_model("tiny", "v1", "tiny_weights.h5", "0" * 32))
    return model


@pytest.fixture
def zoo(monkeypatch):
    pytest.importorskip("larq_zoo", reason="larq-zoo is not installed: pip install 'larq-clip[zoo]'")
    monkeypatch.setattr("larq_clip.cli.zoo._factories", lambda: {"Tiny": tiny, "QuickNet": tiny})
    return monkeypatch


def test_zoo_model(zoo, folder, command):
    code, out, err = command("convert", "zoo:Tiny", "--weights", "none", "--input-shape", "9", "8", "2", "-o", "a.lcb")
    assert code == 0 and "verified: " in out, err
    assert larq_clip.Interpreter("a.lcb").inputs[0].shape == (9, 8, 2)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_files_of_zoo_models(suffix, tmp_path):
    """BinaryDenseNet's class and XNORNet's quantizer, which another process knows of larq-zoo alone.

    Keras itself does not load a quantizer that is a function from .h5.
    """
    pytest.importorskip("larq_zoo", reason="larq-zoo is not installed: pip install 'larq-clip[zoo]'")
    from larq_zoo.literature.densenet import BinaryDenseNet
    from larq_zoo.literature.xnornet import xnor_weight_scale

    from larq_clip._keras import keras, lq

    x = keras.Input((6, 6, 3))
    signs = {"input_quantizer": "ste_sign", "use_bias": False}
    signs["kernel_quantizer"] = xnor_weight_scale if suffix == ".keras" else "magnitude_aware_sign"
    model = BinaryDenseNet(x, lq.layers.QuantConv2D(4, 3, **signs)(x))
    model.save(tmp_path / f"zoo{suffix}")
    code = "import sys; from larq_clip.cli import main; main(['convert', *sys.argv[1:]])"
    run = run_program([sys.executable, "-c", code, f"zoo{suffix}", "-o", "out.lcb"], cwd=tmp_path)
    assert run.returncode == 0 and "verified: " in run.stdout, run.stderr
    assert [op.epilogue.name for op in reader.read((tmp_path / "out.lcb").read_bytes()).ops[1:]] == ["AFFINE"]


def test_zoo_weights_of_a_file(zoo, folder, command):
    model = tiny(weights=None)
    model.save_weights("weights.h5")
    code, _, err = command("convert", "zoo:Tiny", "--weights", "weights.h5", "-o", "a.lcb")
    assert code == 0, err
    x = dyadic_images(3)
    np.testing.assert_array_equal(larq_clip.Interpreter("a.lcb").predict(x), model(x).numpy())
    code, _, err = command("convert", "zoo:Tiny", "--weights", "model.h5", "-o", "b.lcb")
    assert code == 2 and "the weights model.h5 do not fit zoo:Tiny" in err
    code, _, err = command("convert", "zoo:Tiny", "--weights", "images.npy", "-o", "b.lcb")
    assert code == 2 and "accepted are 'none', 'imagenet' and the path of a .h5 or .hdf5 file" in err


def test_zoo_weights_are_downloaded_by_default(zoo, folder, command):
    model = tiny(weights=None)
    model.save_weights("weights.h5")
    zoo.setattr("larq_zoo.core.utils.download_pretrained_model", lambda *arguments: "weights.h5")
    code, _, err = command("convert", "zoo:Tiny", "-o", "a.lcb")
    assert code == 0, err
    x = dyadic_images(3)
    np.testing.assert_array_equal(larq_clip.Interpreter("a.lcb").predict(x), model(x).numpy())


def test_zoo_without_a_network_names_the_file(zoo, folder, command):
    def offline(*arguments):
        raise Exception("URL fetch failure on somewhere: None -- no network")

    zoo.setattr("larq_zoo.core.utils.download_pretrained_model", offline)
    code, _, err = command("convert", "zoo:Tiny", "--weights", "imagenet", "-o", "a.lcb")
    assert code == 2 and "no network" in err
    assert "Fetch the file tiny_weights.h5" in err and "--weights tiny_weights.h5" in err and "--weights none" in err
    from larq_zoo.core import utils

    assert utils.download_pretrained_model is offline and not Path("a.lcb").exists()


def test_zoo_mistakes(zoo, folder, command):
    code, _, err = command("convert", "zoo:quiknet", "-o", "a.lcb")
    assert code == 2 and "did you mean zoo:QuickNet? Accepted are QuickNet, Tiny" in err
    code, _, err = command("convert", "zoo:Tiny", "--weights", "none", "--input-shape", "2", "2", "3", "-o", "a.lcb")
    assert code == 2 and "larq-zoo cannot build Tiny with --input-shape 2 2 3: ValueError" in err
    code, _, err = command("convert", "model.h5", "--weights", "none", "-o", "a.lcb")
    assert code == 2 and "--weights is for zoo:NAME" in err
    code, _, err = command("verify", "model.h5", "model.lcb", "--input-shape", "2", "2", "3")
    assert code == 2 and "--input-shape is for zoo:NAME" in err


def test_zoo_not_installed(folder, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "larq_zoo", None)
    code, _, err = command("convert", "zoo:QuickNet", "-o", "a.lcb")
    assert code == 2 and "needs larq-zoo" in err and "pip install 'larq-clip[zoo]'" in err


def test_zoo_has_its_fourteen_models(monkeypatch):
    pytest.importorskip("larq_zoo", reason="larq-zoo is not installed: pip install 'larq-clip[zoo]'")
    from larq_clip.cli.zoo import zoo_model, zoo_names

    assert len(zoo_names()) == 14 and {"QuickNetSmall", "DoReFaNet", "MeliusNet22"} <= set(zoo_names())
    model = zoo_model("QuickNetSmall", "none", (32, 32, 3))
    assert model.input_shape == (None, 32, 32, 3) and model.output_shape == (None, 1000)
