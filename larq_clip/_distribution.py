"""Training on several devices or machines (`tf.distribute`): one place for what must be the same everywhere.

With `MirroredStrategy` one process has all replicas, and decides once. With `MultiWorkerMirroredStrategy` each worker
is a process that runs the same program, and what it chooses from its data or its logs must come out the same on all of
them. So the workers exchange what they measured, by collective operations that all of them must reach.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from larq_clip._keras import keras, tf

T = TypeVar("T")


class Workers:
    """The processes that train a model together; one where it is not distributed, or distributed in one process.

    Attributes:
        strategy: under which the model was made, or else that of the scope that is active; None without either.
    """

    def __init__(self, model: keras.Model | None = None):
        found = tf.distribute.get_strategy() if tf.distribute.has_strategy() else None
        own = getattr(model, "_distribution_strategy", None)
        self.strategy: Any = own if own is not None else found

    @property
    def several(self) -> bool:
        """Whether there is more than one process."""
        if not isinstance(self.strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return False
        spec = self.strategy.cluster_resolver.cluster_spec().as_dict()
        return sum(len(spec.get(job, ())) for job in ("chief", "worker")) > 1

    def scope(self) -> contextlib.AbstractContextManager:
        """The strategy's scope, for making variables; nothing where there is none, or within a scope already."""
        if self.strategy is None or tf.distribute.has_strategy():
            return contextlib.nullcontext()
        return self.strategy.scope()

    def gather(self, array: Any) -> np.ndarray:
        """An array from each worker, of one shape and dtype on all: ``(workers, ...)``, the chief's first.

        All workers must call it.
        """
        array = np.asarray(array)
        if not self.several:
            return array[None]
        strategy = self.strategy
        devices = len(strategy.extended.worker_devices)
        workers = strategy.num_replicas_in_sync // devices

        def replica():
            context = tf.distribute.get_replica_context()
            number = tf.cast(context.replica_id_in_sync_group, tf.int32)
            # Of the replicas of a worker the first one speaks; a slot of its own keeps NaN from spreading.
            slot = tf.where(number % devices == 0, number // devices, -1)
            own = tf.cast(tf.equal(tf.range(workers), slot), tf.bool)
            own = tf.reshape(own, [workers] + [1] * array.ndim)
            return context.all_reduce(
                tf.distribute.ReduceOp.SUM, tf.where(own, array[None], np.zeros_like(array)[None])
            )

        found = tf.function(lambda: strategy.run(replica))()
        return strategy.experimental_local_results(found)[0].numpy()

    def sum(self, array: np.ndarray) -> np.ndarray:
        """The sum over all workers of arrays that may differ in their first dimension: shorter ones end in zeros."""
        if not self.several:
            return array
        longest = int(self.gather(np.int64(array.shape[0])).max())
        padded = np.pad(array, [(0, longest - array.shape[0])] + [(0, 0)] * (array.ndim - 1))
        return self.gather(padded).sum(0)

    def together(self, what: str, work: Callable[[], T]) -> T:
        """Do work on every worker, without collective operations in it. Where it fails on one, all raise.

        Raises:
            RuntimeError: where it failed on another worker; else what `work` raises.
        """
        if not self.several:
            return work()
        failure: Exception | None = None
        result: Any = None
        try:
            result = work()
        except Exception as error:
            failure = error
        failed = np.flatnonzero(self.gather(np.int64(failure is not None)))
        if failure is not None:
            raise failure
        if failed.size:
            raise RuntimeError(f"{what} failed on worker {failed.tolist()}, whose own error says why")
        return result


def outside_scope(work: Callable[[], T]) -> T:
    """Do work outside of the strategy scope that is active, so that what it makes are plain variables.

    Scopes cannot be left, but they are those of one thread.
    """
    if not tf.distribute.has_strategy():
        return work()
    result: list[T] = []
    failure: list[BaseException] = []

    def run():
        try:
            result.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="larq_clip outside of the strategy scope")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def local_batches(batch: Any) -> Iterator[Any]:
    """The batches that a distributed batch holds for the replicas of this process; a plain batch is one."""
    leaves = tf.nest.flatten(batch)
    if not any(isinstance(leaf, tf.distribute.DistributedValues) for leaf in leaves):
        yield batch
        return
    columns = [leaf.values if isinstance(leaf, tf.distribute.DistributedValues) else (leaf,) for leaf in leaves]
    for parts in zip(*columns):
        # At the end of the data some replicas get nothing.
        if all(int(tf.shape(part)[0]) for part in parts):
            yield tf.nest.pack_sequence_as(batch, parts)
