"""What a training method is: which weights it trains, how they are stored and loaded, and its settings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from omegaconf import MISSING

from curate.run.schema import PATH, UserError, register

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, UNet2DConditionModel
    from torch import Tensor, nn

    from finetune.models.config import ModelConfig
    from finetune.models.interface import LatentDiffusion


_FP32 = 4  # bytes
UNET = "unet"
_CLIP = "text_model."  # begins the names of a text encoder's modules in files, and in some of transformers' classes


@dataclass
class Method(ABC):
    """A way to train a U-Net, and text encoders. Subclasses are dataclasses whose fields are the keys ``method.*``.

    Attributes:
        name: of the method; its default names the schema in Hydra, ``_<name>``.
        init: an export to start with instead of the base model: its folder, or the name of a run, whose
            ``finetune/export`` is taken. Comparisons stay with the base, see ``finetune.start``.
        text_encoder: whether the text encoders are trained as well, all that the pipeline has.
        scalable: whether :meth:`rescale` works; of the class, not a setting.
        retains: whether :meth:`scaled` works, and the base is known while training, as cures against forgetting
            (``export.scale``, ``replay``, ``regularise``) need; of the class.
        kept_states: what ``checkpoint.keep=auto`` means: how many checkpoints keep their optimizer; None: all.
            Of the class, too.
        readers: who reads an export for :meth:`reloaded`, as a message says it; of the class.
    """

    scalable: ClassVar[bool] = False
    retains: ClassVar[bool] = False
    kept_states: ClassVar[int | None] = None
    readers: ClassVar[str] = "diffusers"
    name: str = MISSING
    init: str | None = field(default=None, metadata=PATH)
    text_encoder: bool = False

    @abstractmethod
    def attach(self, unet: UNet2DConditionModel, pixels_per_latent: int) -> None:
        """Unfreeze what is trained, or add it, without changing what ``unet`` computes; :func:`prepare` calls it.

        Args:
            unet: of the base model, fp32, frozen. Initial weights may be drawn from torch's global random
                state, which is seeded.
            pixels_per_latent: pixels of a side for each value of a latent, for methods that read pixels.

        Raises:
            UserError: the settings do not fit the U-Net.
        """

    def example(self, model: LatentDiffusion, latents: Tensor) -> dict[str, Tensor]:
        """Entries of the conditioning that the trained network reads beside the base's, by name, to compare exports by.

        Args:
            model: with the network. latents: [B, C, h, w].
        """
        return {}

    def follows(self) -> str | None:
        """What the network is trained to follow beside captions, see ``finetune.conditions``; None: nothing."""
        return None

    def attach_text(self, encoder: nn.Module, unread: Sequence[str]) -> None:
        """The same as :meth:`attach` for a text encoder.

        Args:
            encoder: of the base model, fp32, frozen.
            unread: modules that get no gradient, by :func:`text_name` without its beginning.

        Raises:
            UserError: the settings do not fit it, or the method trains none.
        """
        raise UserError(
            f"method={self.name} trains no text encoder; remove method.text_encoder=true"
        )

    def networks(self, model: LatentDiffusion) -> dict[str, nn.Module]:
        """Those of a model that are trained: ``unet``, and the text encoders by their names in a pipeline."""
        return {UNET: model.unet, **(model.text_encoders if self.text_encoder else {})}

    def trainable(self, unet: nn.Module) -> dict[str, nn.Parameter]:
        """The weights of a prepared ``unet`` that are trained, by name, in the module's order."""
        return {name: weight for name, weight in unet.named_parameters() if weight.requires_grad}

    def trained(self, model: LatentDiffusion) -> dict[str, nn.Parameter]:
        """The weights of a prepared ``model`` that are trained, by name: the U-Net's, then those of text encoders."""
        found = weights_of(self.networks(model))
        return {name: weight for name, weight in found.items() if weight.requires_grad}

    def rescale(self, unet: nn.Module, factor: float) -> None:
        """Multiply what training added to ``unet`` by ``factor``, in place; 0 leaves the base model.

        Args:
            unet: or a text encoder; prepared, with the weights as they were trained.
            factor: 1 is as trained.

        Raises:
            UserError: the method adds nothing that could be scaled.
        """
        raise UserError(
            f"lora_scale is for LoRA, and this run was trained with method={self.name}, which changes the "
            "weights themselves; remove lora_scale"
        )

    def held(self) -> str:
        """In which precision frozen weights are held while training, see ``finetune.frozen``."""
        return "fp32"

    def scaled(
        self,
        unet: nn.Module,
        values: Mapping[str, Tensor],
        factor: float,
        base: Callable[[], Mapping[str, Tensor]],
    ) -> dict[str, Tensor]:
        """The weights, by the same names, with which the U-Net is W_base + factor * (W - W_base).

        Args:
            unet: prepared; whatever trained weights it holds are not read, and nothing is changed.
            values: W, by the names of :meth:`trainable`.
            factor: 0 ... 1; 1 gives ``values``.
            base: gives the base's own values of those trained weights that it has itself; called where they are needed.

        Returns:
            fp32, on the device of ``values``, in their order.
        """
        raise NotImplementedError(f"{self.name} does not say what lies between base and training")

    @contextmanager
    def switched_off(self, unet: nn.Module) -> Iterator[None]:
        """Make ``unet`` compute what the base does inside a ``with`` block, whatever was trained.

        Only of methods that are ``scalable``; of others the base is gone, as its own weights are trained.
        """
        raise NotImplementedError(f"{self.name} trains the base's own weights")
        yield

    def squared_norms(self, unet: nn.Module) -> Iterator[tuple[Tensor, list[nn.Parameter]]]:
        """Of each module's update W - W_base the squared Frobenius norm, with a gradient, and the weights it depends on.

        Only of methods that are ``scalable``.
        """
        raise NotImplementedError(f"{self.name} trains the base's own weights")

    def fewer_weights(self) -> str:
        """What to type to train fewer weights than now, part of the advice on overfitting; "" where nothing does."""
        return "method=lora"

    @abstractmethod
    def save(self, model: LatentDiffusion, folder: Path) -> None:
        """Write the trained weights in a format that diffusers loads; the same weights, the same bytes.

        Args:
            model: prepared; holds the weights to store.
            folder: does not exist yet.
        """

    @abstractmethod
    def load(self, config: ModelConfig, folder: Path) -> DiffusionPipeline:
        """A pipeline of the base model with the weights in ``folder``, read as a user of diffusers would.

        Args:
            config: of the base model.
            folder: written by :meth:`save`.

        Returns:
            On the CPU, fp32; shares nothing with the one that was stored.
        """

    def export_bytes(self, model: LatentDiffusion) -> int:
        """What the weights in an export of ``model``, which is prepared, take."""
        return _FP32 * sum(weight.numel() for weight in self.trained(model).values())

    def save_for_others(
        self,
        model: LatentDiffusion,
        config: ModelConfig,
        folder: Path,
        name: str,
        trigger: str = "",
    ) -> None:
        """Write the weights for programs that do not read what :meth:`save` wrote, beside it; by default nothing.

        Args:
            model: as for :meth:`save`.
            config: of the base model.
            folder: written by :meth:`save`.
            name: of the model, for a file and its header.
            trigger: the word in front of all captions, for the header; "" for none.
        """
        return

    def reloaded(self, config: ModelConfig, folder: Path, name: str) -> Iterator[DiffusionPipeline]:
        """The pipeline as each of :attr:`readers` reads it from ``folder``, one after the other.

        Args:
            config: of the base model.
            folder: written by :meth:`save` and :meth:`save_for_others`.
            name: that the latter got.
        """
        yield self.load(config, folder)

    def python(self, base: str, folder: str) -> list[str]:
        """Lines of Python that make ``pipe``, a pipeline with the weights in ``folder``, without Darkroom."""
        if folder.endswith(".safetensors"):
            return [
                "from diffusers import StableDiffusionPipeline  # of SDXL: StableDiffusionXLPipeline",
                "",
                f"pipe = StableDiffusionPipeline.from_single_file({folder!r})",
            ]
        return [
            "from diffusers import DiffusionPipeline",
            "",
            f"pipe = DiffusionPipeline.from_pretrained({folder!r})",
        ]

    def files(self, folder: Path) -> list[Path]:
        """The files of an export that hold what was trained; none where ``folder`` is no export of this method."""
        return []

    def refuse_to_start(self, folder: Path, option: str) -> None:
        """Refuse an export that a training with these settings cannot go on from, before anything heavy.

        Args:
            folder: with :meth:`files`.
            option: that named it, as it is typed.

        Raises:
            UserError: the settings differ from those of the export, or the method starts with the base only; says
                what to type.
        """
        raise UserError(
            f"{option}: a training with method={self.name} starts with the base; remove method.init"
        )

    def starting_weights(
        self, model: LatentDiffusion, folder: Path, option: str
    ) -> dict[str, Tensor]:
        """What an export holds, by the names of :meth:`trained`.

        Args:
            model: the base, prepared; is not changed.
            folder: that :meth:`refuse_to_start` lets pass. option: that named it.

        Returns:
            fp32, on the CPU, in the order of :meth:`trained`. With them the model computes what plain diffusers
            computes with the export.

        Raises:
            UserError: the export does not fit the model.
        """
        raise NotImplementedError(f"{self.name} lets no export pass")


def text_name(name: str) -> str:
    """What a weight or module of a text encoder is called in files, whichever of transformers' classes it is of.

    >>> text_name("encoder.layers.0.mlp.fc1.bias"), text_name("text_model.final_layer_norm.bias")
    ('text_model.encoder.layers.0.mlp.fc1.bias', 'text_model.final_layer_norm.bias')
    >>> text_name("text_projection.weight")
    'text_projection.weight'
    """
    return name if name.startswith((_CLIP, "text_projection")) else _CLIP + name


def flat_text_name(name: str) -> str:
    """The same without ``text_model.`` in front."""
    return name.removeprefix(_CLIP)


def weights_of(networks: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """All weights of some networks, by the names that checkpoints have: of the U-Net's its own.

    Args:
        networks: see :meth:`Method.networks`.
    """
    found: dict[str, nn.Parameter] = {}
    for part, network in networks.items():
        for name, weight in network.named_parameters():
            found[name if part == UNET else f"{part}.{text_name(name)}"] = weight
    return found


def prepare_model(model: LatentDiffusion, method: Method, seed: int) -> None:
    """:func:`prepare` its U-Net, and the text encoders, if they are trained.

    Raises:
        UserError: the method's settings do not fit the model.
    """
    prepare(model.unet, method, seed, model.pixels_per_latent)
    unread = model.unread_text_modules()
    for part, network in method.networks(model).items():
        if part != UNET:
            with _seeded(network, seed):
                method.attach_text(network, unread.get(part, []))


def prepare(
    unet: UNet2DConditionModel, method: Method, seed: int, pixels_per_latent: int = 8
) -> None:
    """Freeze ``unet`` but for what ``method`` trains, in place.

    Args:
        unet: fp32, of the base model.
        method: adds or unfreezes what it trains.
        seed: of initial weights; the global random state is left as it was.
        pixels_per_latent: of the base model's VAE.

    Raises:
        UserError: the method's settings do not fit the U-Net.
    """
    with _seeded(unet, seed):
        method.attach(unet, pixels_per_latent)


@contextmanager
def _seeded(network: nn.Module, seed: int) -> Iterator[None]:
    """Freeze a network, and seed the global random state inside a ``with`` block."""
    import torch

    network.requires_grad_(False)
    device = next(network.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def fitting(
    found: dict[str, Tensor], wanted: dict[str, nn.Parameter], option: str, otherwise: str
) -> dict[str, Tensor]:
    """The weights of an export in the order of those that are trained, fp32.

    Args:
        found: of the export. wanted: those that are trained, by the same names.
        option: that named the export. otherwise: what to do where they do not fit.

    Raises:
        UserError: a name or a shape differs.
    """
    odd = sorted(found.keys() ^ wanted.keys())
    odd = odd or [name for name, weight in wanted.items() if found[name].shape != weight.shape]
    if odd:
        raise UserError(
            f"{option} does not fit the model: {len(odd)} weights are missing, unknown or of another shape, such "
            f"as {odd[0]}. {otherwise}"
        )
    return {name: found[name].float() for name in wanted}


METHODS: dict[str, type[Method]] = {}
Kind = TypeVar("Kind", bound=type[Method])


def register_method(kind: Kind) -> Kind:
    """Class decorator: make a method known to Hydra and to those who open its runs.

    Raises:
        ValueError: the class gives its field ``name`` no default, or one that another method has.
    """
    if kind.name == MISSING:
        raise ValueError(f"{kind.__qualname__}.name has no default; give the method a name")
    if kind.name in METHODS:
        taken = METHODS[kind.name].__qualname__
        raise ValueError(f"{kind.__qualname__}.name={kind.name!r} is the name of {taken} already")
    METHODS[kind.name] = kind
    register(kind, kind.name, "method")
    return kind
