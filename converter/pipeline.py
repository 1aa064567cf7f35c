"""From the graph of a Keras model to the graph of a file: the one ordered list of passes."""

from __future__ import annotations

from typing import NamedTuple

from larq_clip.converter import ir, spec
from larq_clip.converter.passes.base import Pass
from larq_clip.converter.passes.check_ranges import check_ranges
from larq_clip.converter.passes.float_outputs import float_outputs
from larq_clip.converter.passes.fold_batch_norm import fold_batch_norm
from larq_clip.converter.passes.fold_padding import fold_padding
from larq_clip.converter.passes.fuse_activations import fuse_activations
from larq_clip.converter.passes.fuse_fixed_point import fuse_fixed_point
from larq_clip.converter.passes.fuse_levels import fuse_levels
from larq_clip.converter.passes.fuse_thresholds import fuse_thresholds
from larq_clip.converter.passes.join_convolutions import join_convolutions
from larq_clip.converter.passes.lower_accumulators import lower_accumulators
from larq_clip.converter.passes.lower_batch_norm import lower_batch_norm
from larq_clip.converter.passes.lower_channels import lower_channels
from larq_clip.converter.passes.separate_outputs import separate_outputs
from larq_clip.converter.passes.share_signs import share_signs
from larq_clip.converter.passes.sink_flatten import sink_flatten
from larq_clip.converter.passes.store_before_pools import store_before_pools


class Stage(NamedTuple):
    """A pass, and why it stands where it does."""

    run: Pass
    reason: str


PIPELINE: tuple[Stage, ...] = (
    Stage(check_ranges, "first: the passes evaluate chains of integers, which must not overflow"),
    Stage(float_outputs, "before the fusions: afterwards an output is a reader like any other"),
    Stage(separate_outputs, "after float_outputs, so that it copies float32; before the fusions, which spare outputs"),
    Stage(lower_channels, "before fold_padding and fuse_fixed_point, which know what to do with a convolution"),
    Stage(store_before_pools, "before fuse_fixed_point, which takes the store into the op that computes the integers"),
    Stage(
        fold_padding,
        "before fuse_thresholds, behind which a sign that was taken of zeros has thresholds; before share_signs, which "
        "makes the signs of an image with and without its zeros one",
    ),
    Stage(
        sink_flatten,
        "before fuse_thresholds, which looks for the ops between a layer and a sign and stops at a Flatten",
    ),
    Stage(
        share_signs,
        "after sink_flatten, which makes the signs of an image and of the flattened image one; "
        "before fuse_thresholds, which fuses only where one sign reads an accumulator",
    ),
    Stage(
        fuse_thresholds, "before the batch norms are folded or lowered: a sign must see what Keras computes, unrounded"
    ),
    Stage(fuse_levels, "beside fuse_thresholds, for the same reason"),
    Stage(
        fuse_fixed_point,
        "after fuse_thresholds: the batch norms in front of signs have become thresholds, so that what reads an exact "
        "tensor stores it; before lower_accumulators, which makes numbers of what no epilogue started from",
    ),
    Stage(join_convolutions, "after fuse_fixed_point: until then convolutions end in exact tensors, which none joins"),
    Stage(fold_batch_norm, "after fuse_thresholds, so that only batch norms without a sign are left"),
    Stage(lower_batch_norm, "after fold_batch_norm, for those that no weights could take"),
    Stage(lower_accumulators, "after lower_batch_norm: the affine epilogue takes the Affine that a batch norm became"),
    Stage(fuse_activations, "after lower_accumulators: the affine epilogue has no activation, so it needs them apart"),
)


def lower(graph: ir.Graph) -> ir.Graph:
    """Run all passes; the result holds only ops of the file.

    Raises:
        larq_clip.converter.spec.SpecError: where a pass leaves a graph that breaks a rule; a bug of the converter.
    """
    spec.check(graph)
    for stage in PIPELINE:
        graph = stage.run(graph)
        try:
            spec.check(graph)
        except spec.SpecError as error:
            raise spec.SpecError(f"after the pass {stage.run.__name__}: {error}") from error
    spec.check(graph, lowered=True)
    return graph
