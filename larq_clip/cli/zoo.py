"""Models of larq-zoo by name, for `larq-clip convert zoo:NAME`."""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from larq_clip.errors import ConversionError

PREFIX = "zoo:"
NONE, IMAGENET = "none", "imagenet"
WEIGHT_SUFFIXES = (".h5", ".hdf5")


def zoo_model(name: str, weights: str = IMAGENET, input_shape: tuple[int, int, int] | None = None) -> Any:
    """A model of larq-zoo.

    Args:
        name: as in larq-zoo, without ``zoo:``.
        weights: "none" (random), "imagenet" (larq-zoo downloads them), or the path of a .h5 file of weights.
        input_shape: height, width and channels; None for larq-zoo's own, 224 x 224 x 3.

    Raises:
        ConversionError: where larq-zoo is not installed or has no such model, the weights cannot be had or do not fit,
            or the model cannot be built for the shape.
    """
    make = _factory(name)
    path = None if weights in (NONE, IMAGENET) else _weight_file(weights)
    with contextlib.redirect_stdout(sys.stderr):  # the progress of a download
        model = _built(name, make, IMAGENET if weights == IMAGENET else None, input_shape)
    if path is not None:
        try:
            model.load_weights(path)
        except Exception as error:  # h5py and Keras raise whatever they meet
            raise ConversionError(
                f"the weights {path} do not fit {PREFIX}{name}: {_first_line(error)}; accepted is what "
                "model.save_weights wrote of this model with 1000 classes"
            ) from error
    return model


def zoo_names() -> list[str]:
    """Names of all models of larq-zoo.

    Raises:
        ConversionError: where it is not installed.
    """
    return sorted(_factories())


def zoo_objects() -> dict[str, type]:
    """Classes that files of larq-zoo's models name, and that it does not register with Keras as it does quantizers.

    Empty where larq-zoo is not installed.
    """
    try:
        from larq_zoo.literature import densenet
    except ImportError:
        return {}
    return {"BinaryDenseNet": densenet.BinaryDenseNet}


def _factories() -> dict[str, Callable[..., Any]]:
    try:
        from larq_zoo import literature, sota
    except ImportError as error:
        raise ConversionError(
            f"{PREFIX}NAME needs larq-zoo, which cannot be imported ({error}); install it: pip install 'larq-clip[zoo]'"
        ) from error
    return {name: getattr(module, name) for module in (literature, sota) for name in module.__all__}


def _factory(name: str) -> Callable[..., Any]:
    factories = _factories()
    if name in factories:
        return factories[name]
    folded = {known.lower(): known for known in factories}
    near = difflib.get_close_matches(name.lower(), folded, n=1)
    guess = f"did you mean {PREFIX}{folded[near[0]]}? " if near else ""
    raise ConversionError(f"larq-zoo has no model {name!r}; {guess}Accepted are {', '.join(sorted(factories))}")


def _weight_file(weights: str) -> Path:
    path = Path(weights)
    if not path.is_file() or path.suffix not in WEIGHT_SUFFIXES:
        raise ConversionError(
            f"--weights is {weights!r}, which is not a file of weights; accepted are {NONE!r}, {IMAGENET!r} and the "
            f"path of a {' or '.join(WEIGHT_SUFFIXES)} file"
        )
    return path


def _built(name: str, make: Callable[..., Any], weights: str | None, input_shape: tuple[int, int, int] | None) -> Any:
    from larq_zoo.core import utils

    from larq_clip._scope import quantized_scope

    wanted: list[str] = []
    download = utils.download_pretrained_model

    def recorded(model: str, version: str, file: str, *arguments: Any, **options: Any) -> str:
        wanted.append(file)
        return download(model, version, file, *arguments, **options)

    utils.download_pretrained_model = recorded
    try:
        with quantized_scope():
            return make(input_shape=input_shape, weights=weights)
    except Exception as error:
        if wanted:
            raise ConversionError(
                f"the ImageNet weights of {PREFIX}{name} cannot be downloaded: {_first_line(error)}. Fetch the file "
                f"{wanted[-1]} on a machine with a network connection and pass it: --weights {wanted[-1]}; or convert "
                "with random weights: --weights none"
            ) from error
        shape = "" if input_shape is None else f" with --input-shape {' '.join(map(str, input_shape))}"
        raise ConversionError(f"larq-zoo cannot build {name}{shape}: {_first_line(error)}") from error
    finally:
        utils.download_pretrained_model = download


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
