"""Reading and setting the learning rate of any Keras 2 optimizer: new, legacy, wrapped, or Larq's CaseOptimizer."""

from __future__ import annotations

from typing import Any

from larq_clip._callbacks.arguments import optional_rate
from larq_clip._keras import keras


def optimizers_with_rate(model: keras.Model) -> list[Any]:
    """The optimizers of a compiled model that have a learning rate of their own, each with a number for it.

    A loss-scaling optimizer stands for the one inside; a `larq.optimizers.CaseOptimizer` for those it chooses from,
    of which `larq.optimizers.Bop` has no learning rate.

    Raises:
        ValueError: where there is none, or a rate is a schedule.
    """
    optimizer = model.optimizer
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    several = getattr(optimizer, "optimizers", None)
    found = [one for one in (several or [optimizer]) if "learning_rate" in one.get_config()]
    if not found:
        raise ValueError(
            f"the optimizer {type(optimizer).__name__} has no learning rate to restart; leave restart_learning_rate "
            "and restart_factor out, or compile with an optimizer that has one"
        )
    for one in found:
        rate = one.get_config()["learning_rate"]
        if isinstance(rate, dict):
            raise ValueError(
                f"the learning rate of {type(one).__name__} is the schedule {rate['class_name']}, which follows the "
                "optimizer's step count and cannot be restarted; compile with a number as learning_rate and lower it "
                "by a callback (keras.callbacks.LearningRateScheduler, ReduceLROnPlateau), or leave "
                "restart_learning_rate and restart_factor out and let the schedule itself rise at the switch"
            )
    return found


def read_rates(optimizers: list[Any]) -> list[float]:
    """The current learning rate of each."""
    return [float(keras.backend.get_value(optimizer.learning_rate)) for optimizer in optimizers]


def set_rates(optimizers: list[Any], rates: list[float]) -> None:
    """Give each its learning rate; functions traced already follow."""
    for optimizer, rate in zip(optimizers, rates):
        optimizer.learning_rate = rate


class RateRestart:
    """A learning rate to set anew as a stage of training begins: a number, a multiple of the first rate, or neither.

    Raises:
        ValueError: where both are given, or one is not a number above 0.
    """

    def __init__(self, rate: float | None, factor: float | None):
        if rate is not None and factor is not None:
            raise ValueError("restart_learning_rate and restart_factor are both given; give one of them")
        self.rate = optional_rate("restart_learning_rate", rate)
        self.factor = optional_rate("restart_factor", factor)

    @property
    def wanted(self) -> bool:
        """Whether there is anything to set."""
        return self.rate is not None or self.factor is not None

    def check(self, model: keras.Model) -> None:
        """Raises ValueError where the model's optimizer has no learning rate that can be restarted so."""
        if not self.wanted:
            return
        optimizers = optimizers_with_rate(model)
        if self.rate is not None and len(optimizers) > 1:
            raise ValueError(
                f"restart_learning_rate is {self.rate}, but the optimizer has {len(optimizers)} learning rates; give "
                "restart_factor, which multiplies each"
            )

    def initial_rates(self, model: keras.Model, known: list[float] | None) -> list[float] | None:
        """The rates that training began with: those known, else the present ones; None where they are not needed."""
        if self.factor is None or known is not None:
            return known
        return read_rates(optimizers_with_rate(model))

    def apply(self, model: keras.Model, initial_rates: list[float] | None) -> None:
        """Set the rate or rates anew; does nothing where none was asked for."""
        if self.rate is not None:
            set_rates(optimizers_with_rate(model), [self.rate])
        elif self.factor is not None:
            set_rates(optimizers_with_rate(model), [self.factor * rate for rate in initial_rates or ()])
