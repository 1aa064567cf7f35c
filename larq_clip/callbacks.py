"""Keras callbacks: training in stages, watching what the clips cut off, keeping thresholds where they can act."""

from __future__ import annotations

from larq_clip._callbacks.batch_norm_quantization import BatchNormQuantization
from larq_clip._callbacks.saturation_monitor import SaturationMonitor
from larq_clip._callbacks.threshold_range import ThresholdRange
from larq_clip._callbacks.two_stage_clipping import TwoStageClipping

__all__ = ["BatchNormQuantization", "SaturationMonitor", "ThresholdRange", "TwoStageClipping"]
