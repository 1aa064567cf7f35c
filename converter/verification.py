"""What a verification found: the tensors compared, and the first value or constant that differs."""

from __future__ import annotations

from dataclasses import dataclass, field

from larq_clip.converter.compare import ConstantMismatch
from larq_clip.errors import VerificationError

AXES = ("row", "column", "channel")


@dataclass(frozen=True)
class Mismatch:
    """The first value that differs by more than rounding explains.

    Attributes:
        against: "Keras" or "the file".
        layer: the layers that compute it, joined by '+'.
        op: type of the op, or types joined by '+'.
        tensor: name of the tensor.
        image: number of the image in the batch.
        place: index in the tensor, without the batch: channel last, pixel before it.
        expected: what the other side computes.
        found: what the C runtime computes.
        allowed: how much rounding explains.
        differing: how many values of the tensor differ by more than that, in this image.
        size: how many values it has.
    """

    against: str
    layer: str
    op: str
    tensor: str
    image: int
    place: tuple[int, ...]
    expected: float
    found: float
    allowed: float
    differing: int
    size: int

    def __str__(self) -> str:
        names = AXES[len(AXES) - len(self.place) :]
        where = ", ".join(f"{name} {index}" for name, index in zip(names, self.place, strict=True))
        rule = f"rounding explains up to {self.allowed:.3g}" if self.allowed else "accepted are equal values"
        says = "Keras computes" if self.against == "Keras" else "the file says"
        return (
            f"layer {self.layer!r} ({self.op}), tensor {self.tensor!r}, image {self.image}, {where}: {says} "
            f"{self.expected:.9g}, the C runtime computes {self.found:.9g}; {rule}, and {self.differing:,} of "
            f"{self.size:,} values differ"
        )


@dataclass
class Verification:
    """What was compared.

    Attributes:
        images: how many.
        tensors: tensors compared with Keras, by name: the largest difference found, 0.0 where all values were equal.
        allowed: of those that differed, the largest difference that rounding explains, by name.
        ops: ops compared with the file.
        values: numbers compared with Keras.
        flipped: signs and integers that differ where rounding explains it.
        outputs: of each output the largest difference to Keras on its own, through all layers.
        constants: whether the file's constants were compared with the model's; False where the file has other ops than
            this version writes, None where that was not asked for.
        mismatch: the first value that differs by more, or the first constant; None where the file computes what Keras
            computes.
    """

    images: int
    ops: int = 0
    values: int = 0
    flipped: int = 0
    tensors: dict[str, float] = field(default_factory=dict)
    allowed: dict[str, float] = field(default_factory=dict)
    outputs: dict[str, float] = field(default_factory=dict)
    constants: bool | None = None
    mismatch: Mismatch | ConstantMismatch | None = None

    @property
    def exact(self) -> int:
        """How many tensors had equal values everywhere."""
        return sum(not difference for difference in self.tensors.values())

    def require(self) -> Verification:
        """This, where there is no mismatch.

        Raises:
            larq_clip.VerificationError: names the first one: layer, channel, pixel, both values.
        """
        if self.mismatch is not None:
            raise VerificationError(f"{self.mismatch}; {self._remedy}")
        return self

    def summary(self) -> str:
        """What was compared, in one line."""
        rounded = len(self.tensors) - self.exact
        words = [f"{self.exact} tensors equal Keras's on {self.images} image{'s' if self.images > 1 else ''}"]
        if rounded:
            words.append(f"{rounded} up to float32 rounding")
        if self.flipped:
            words.append(f"{self.flipped:,} signs or stored integers differ where rounding explains it")
        return ", ".join(words)

    def details(self) -> list[str]:
        """More lines: where float32 was rounded, the constants, the outputs."""
        lines = [
            f"  {name}: differs by up to {self.tensors[name]:.3g}, and rounding explains up to {allowed:.3g}"
            for name, allowed in self.allowed.items()
        ]
        lines.append(f"{self.ops} ops on the C runtime compute what the file says; {self.values:,} values compared")
        if self.constants is not None:
            equal = "equal to what the model gives" if self.constants else "not compared: it has other ops than this "
            lines.append(f"constants of the file: {equal}{'' if self.constants else 'version writes'}")
        for name, difference in self.outputs.items():
            lines.append(f"output {name!r}, all layers on either side: differs by up to {difference:.3g}")
        return lines

    @property
    def _remedy(self) -> str:
        if isinstance(self.mismatch, Mismatch) and self.mismatch.against != "Keras":
            return "the C runtime is wrong on this machine: report a bug of larq_clip"
        return (
            "the file is damaged or was made from another model: convert the model again; if that does not help, "
            "report a bug of larq_clip"
        )
