"""The schema of how pictures are cut out and cached."""

from __future__ import annotations

from dataclasses import dataclass

from curate.run.schema import UserError, check
from finetune.buckets import Sides, sides

LATENTS = ("mean", "posterior")
CAPTIONS = ("hidden", "tokens")
LATENT_PRECISIONS = ("fp32", "fp16")
ENLARGE = ("warn", "refuse", "allow")
_LATENT = 8  # pixels of a side for each value of a latent, in all models that are supported


@dataclass
class BucketsConfig:
    """Aspect buckets, see ``finetune.buckets``; without them every picture is cropped to a square.

    Attributes:
        step: both sides of a bucket are multiples of it, in pixels.
        min, max: of both sides; null is half of and twice ``model.resolution``.
        enlarge: pictures that have fewer pixels than their bucket are enlarged: ``warn`` says how many, ``allow`` says
            nothing, and with ``refuse`` no training starts that has some.
    """

    enabled: bool = False
    step: int = 64
    min: int | None = None
    max: int | None = None
    enlarge: str = "warn"

    def __post_init__(self) -> None:
        step, least, most = self.step, self.min, self.max
        check(
            step > 0 and step % _LATENT == 0, "buckets.step", step, f"a multiple of {_LATENT}, > 0"
        )
        for name, value in (("min", least), ("max", most)):
            check(value is None or value > 0, f"buckets.{name}", value, "null or > 0")
        check(self.enlarge in ENLARGE, "buckets.enlarge", self.enlarge, ", ".join(ENLARGE))
        if least is not None and most is not None:
            check(least <= most, "buckets.min", least, f"at most buckets.max={most}")
        if self.enabled:
            return
        for name in ("step", "min", "max", "enlarge"):
            if (value := getattr(self, name)) != getattr(BucketsConfig, name):
                raise UserError(
                    f"buckets.{name}={value} has no effect without buckets.enabled=true; type that, or remove it"
                )

    def sides(self, resolution: int) -> tuple[Sides, ...]:
        """The buckets of a model of this resolution; none where they are switched off.

        Raises:
            UserError: the settings leave fewer than two.
        """
        if not self.enabled:
            return ()
        least, most = self.min or resolution // 2, self.max or 2 * resolution
        found = sides(resolution, self.step, least, most)
        if len(found) < 2:
            raise UserError(
                f"buckets.enabled=true has no effect: with buckets.step={self.step}, sides from {least} to {most} and "
                f"an area of at most {resolution}x{resolution} there is {len(found)} bucket; type a smaller step, such "
                f"as buckets.step={max(_LATENT, resolution // 8 // _LATENT * _LATENT)}, or wider limits "
                "(buckets.min, buckets.max)"
            )
        return found


@dataclass
class CacheConfig:
    """What is encoded once, for all runs. Of a held-out picture it is the mean in fp32, whatever is trained on.

    Attributes:
        latents: ``mean`` of what the VAE says, or its ``posterior``, of which every visit draws a sample: mean and standard
            deviation, in twice the space.
        precision: of what is stored, fp32 or fp16, in half the space; training computes in fp32 from there.
        captions: ``hidden``, the text encoder's hidden states; or ``tokens``, its token ids, which it encodes at each
            use. auto: hidden states; token ids where a text encoder is trained, which makes others at each update.
    """

    latents: str = "mean"
    precision: str = "fp32"
    captions: str = "auto"

    def __post_init__(self) -> None:
        known = (
            ("latents", LATENTS),
            ("precision", LATENT_PRECISIONS),
            ("captions", ("auto", *CAPTIONS)),
        )
        for name, accepted in known:
            value = getattr(self, name)
            check(value in accepted, f"cache.{name}", value, ", ".join(accepted))

    @property
    def size(self) -> float:
        """Space of a picture, in that of a mean in fp32."""
        return (1 + (self.latents == "posterior")) / (1 + (self.precision == "fp16"))
