"""What all adapters share: weights beside frozen ones, exported in two layouts, scaled, started from an export."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from curate.run.schema import UserError, check
from finetune.methods.interface import UNET, Method, fitting, flat_text_name

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, UNet2DConditionModel
    from torch import Tensor, nn

    from finetune.models.config import ModelConfig
    from finetune.models.interface import LatentDiffusion

TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")  # as diffusers' scripts train them
Stored = tuple[dict[str, Any], list[str]]
"""peft's settings, {} where an export says none, and the names of the weights, as peft has them."""

ADAPTER = "default"  # that peft gives an adapter, as a part of its weights' names
_PARAMETER = re.compile(r"\.(lora|lokr|hada)_.*")  # behind a module's name
# Settings of an adapter that change what rank and alpha mean.
_HELD = ("fp32", "bf16", "fp8")
_UNKNOWN_SCALE = ("use_rslora", "rank_pattern", "alpha_pattern")


@dataclass
class Adapter(Method):
    """Frozen networks with small trained weights beside those of some modules.

    Attributes:
        rank: of what is added to a weight.
        alpha: its scale; ``alpha == rank`` is a scale of one.
        targets: suffixes of the names of the U-Net's modules that get an adapter.
        text_encoder_targets: the same of the text encoders, where they are trained.
        base_weights: in which the frozen weights are held while training, see ``finetune.frozen``: ``fp32``, ``bf16`` or
            ``fp8`` (float8_e4m3fn). What is trained stays fp32, and what is computed is as ``optim.mixed_precision`` says.
        noun: what it is called in messages; of the class, as the three below.
        linear: peft's names of the parts of which each module has one, in which the update is linear.
        settings: peft's name of each key ``method.*`` that decides what the stored weights mean.
        fixed: settings of peft that have no key.
    """

    scalable: ClassVar[bool] = True
    retains: ClassVar[bool] = True
    noun: ClassVar[str] = "adapter"
    linear: ClassVar[tuple[str, ...]]
    settings: ClassVar[dict[str, str]] = {"rank": "r", "alpha": "alpha"}
    fixed: ClassVar[dict[str, Any]] = {}
    rank: int = 16
    alpha: float = 16.0
    targets: list[str] = field(default_factory=lambda: ["to_q", "to_k", "to_v", "to_out.0"])
    text_encoder_targets: list[str] = field(default_factory=lambda: list(TEXT_TARGETS))
    base_weights: str = "fp32"

    def __post_init__(self) -> None:
        known = self.base_weights in _HELD
        check(known, "method.base_weights", self.base_weights, ", ".join(_HELD))
        check(self.rank > 0, "method.rank", self.rank, "> 0")
        check(self.alpha > 0, "method.alpha", self.alpha, "> 0")
        for key in ("targets", "text_encoder_targets"):
            named = getattr(self, key)
            check(len(named) > 0, f"method.{key}", named, "at least one module name")

    @staticmethod
    @abstractmethod
    def kind() -> type:
        """The class of peft's configuration."""

    @abstractmethod
    def header(self) -> dict[str, str]:
        """What the file in kohya's layout says of the method: ``ss_network_module`` and ``ss_network_args``."""

    @abstractmethod
    def stored(self, folder: Path, option: str) -> dict[str, Stored]:
        """What an export says of itself, by network: ``unet``, and text encoders that were trained.

        Args:
            folder: with :meth:`files`. option: that named it.

        Raises:
            UserError: it cannot be read.
        """

    @abstractmethod
    def tensors(self, folder: Path) -> dict[str, Tensor]:
        """The weights of an export, by the names of :meth:`trained` without that of the adapter."""

    def attach(self, unet: UNet2DConditionModel, pixels_per_latent: int) -> None:
        """The first forward pass is the base model's.

        Raises:
            UserError: the U-Net has no modules of the names ``targets``, or such that take no adapter.
        """
        self.add(unet, "targets", ())

    def attach_text(self, encoder: nn.Module, unread: Sequence[str]) -> None:
        """As :meth:`attach`; what the U-Net is given nothing of gets no adapter, as it could not learn."""
        self.add(encoder, "text_encoder_targets", unread)

    def add(self, network: Any, key: str, without: Sequence[str]) -> None:
        """Add adapters to the modules that the setting ``key`` names, but for those in the modules ``without``."""
        chosen = {theirs: getattr(self, ours) for ours, theirs in self.settings.items()}
        targets = list(getattr(self, key))
        if left_out := _inside(network, targets, without):
            chosen["exclude_modules"] = left_out
        adapter = self.kind()(target_modules=targets, **chosen, **self.fixed)
        try:
            network.add_adapter(adapter)
        except (ValueError, TypeError) as error:
            raise UserError(f"method.{key}={targets} does not fit the model: {error}") from error
        # transformers notes the folder that the base was in
        network.peft_config[ADAPTER].base_model_name_or_path = None

    def rescale(self, unet: nn.Module, factor: float) -> None:
        """W + factor * what training added to it."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers: list[Any] = [m for m in unet.modules() if isinstance(m, BaseTunerLayer)]
        for layer in layers:
            for name in layer.active_adapters:
                layer.set_scale(name, factor)

    def held(self) -> str:
        """As the setting says."""
        return self.base_weights

    def scaled(
        self,
        unet: nn.Module,
        values: Mapping[str, Tensor],
        factor: float,
        base: Callable[[], Mapping[str, Tensor]],
    ) -> dict[str, Tensor]:
        """One of the matrices, in which the update is linear, times ``factor``.

        Not alpha: of a LoKr whose matrices are whole no reader applies it, a DoRA is not linear in it, and loaders that
        do not know an adapter's alpha take its rank. So every reader gets the same strength, and ``method.init`` starts
        with the same settings.
        """
        linear = [
            name for name in values if any(f".{part}." in f".{name}." for part in self.linear)
        ]
        return {
            name: weight * factor if name in linear else weight for name, weight in values.items()
        }

    @contextmanager
    def switched_off(self, unet: nn.Module) -> Iterator[None]:
        """Without the adapter."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers = [m for m in unet.modules() if isinstance(m, BaseTunerLayer)]
        for layer in layers:
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in layers:
                layer.enable_adapters(True)

    def squared_norms(self, unet: nn.Module) -> Iterator[tuple[Tensor, list[nn.Parameter]]]:
        """Of what each adapter adds to its module's weight."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        for layer in unet.modules():
            if isinstance(layer, BaseTunerLayer):
                parts = [weight for weight in layer.parameters() if weight.requires_grad]
                yield self.update_of(layer).square().sum(), parts

    def update_of(self, layer: Any) -> Tensor:
        """W - W_base of a layer of peft's, with a gradient."""
        return layer.get_delta_weight(ADAPTER)

    def fewer_weights(self) -> str:
        """Half the rank."""
        return f"method.rank={max(self.rank // 2, 1)}"

    def export_bytes(self, model: LatentDiffusion) -> int:
        """The same weights are in two files."""
        return 2 * super().export_bytes(model)

    def save_for_others(
        self,
        model: LatentDiffusion,
        config: ModelConfig,
        folder: Path,
        name: str,
        trigger: str = "",
    ) -> None:
        """Write ``<name>.safetensors`` in kohya's layout, see ``finetune.methods.adapters.kohya``."""
        from finetune.methods.adapters import kohya

        said = {"ss_network_dim": str(self.rank), "ss_network_alpha": f"{self.alpha:g}"}
        if trigger:
            said["modelspec.trigger_phrase"] = trigger
        encoders = {part: each for part, each in self.networks(model).items() if part != UNET}
        file = kohya.path(folder, name)
        kohya.write(file, model, config, said | self.header(), name, encoders)

    def reloaded(self, config: ModelConfig, folder: Path, name: str) -> Iterator[DiffusionPipeline]:
        """The base model's pipeline with each of the two files."""
        from finetune.methods.adapters import kohya, kohya_reader
        from finetune.models import load_pipeline

        yield self.load(config, folder)
        pipeline = load_pipeline(config)
        kohya_reader.apply(pipeline, kohya.path(folder, name))
        yield pipeline

    def refuse_to_start(self, folder: Path, option: str) -> None:
        """Rank, alpha, targets and the like have to equal the export's.

        Raises:
            UserError: they do not, or the export does not say them.
        """
        found, where = self.stored(folder, option), self.files(folder)[0]
        if (len(found) > 1) != self.text_encoder:
            raise UserError(_other_networks(option, self.text_encoder))
        for part, (adapter, names) in found.items():
            self._refuse_other_scale(adapter, option, where)
            self._refuse_other_targets(adapter, names, option, part)

    def _refuse_other_scale(self, adapter: dict[str, Any], option: str, where: Path) -> None:
        theirs = {ours: adapter.get(peft) for ours, peft in self.settings.items()}
        if not isinstance(theirs["rank"], int) or not isinstance(theirs["alpha"], int | float):
            raise UserError(
                f"{option}: {where} does not say its rank and alpha in its header, as exports of training "
                "do, so that its scale is not known. Take the folder of an export, or remove method.init"
            )
        if strange := [name for name in _UNKNOWN_SCALE if adapter.get(name)]:
            raise UserError(
                f"{option}: {where} was made with {strange[0]}, which is not supported; remove method.init"
            )
        ours = {name: getattr(self, name) for name in self.settings}
        if theirs != ours:
            raise UserError(
                f"{option} is a {self.noun} of {_said(theirs)}, and the settings are {_typed(ours)}. A training goes "
                f"on with the {_said(dict.fromkeys(ours, ''))} of what it starts with; type {_typed(theirs)}"
            )

    def _refuse_other_targets(
        self, adapter: dict[str, Any], names: list[str], option: str, part: str
    ) -> None:
        key = "targets" if part == UNET else "text_encoder_targets"
        targets = getattr(self, key)
        known = adapter.get("target_modules")
        if isinstance(known, list) and set(known) == set(targets):
            return
        modules = {_PARAMETER.sub("", name) for name in names}
        others = {m for m in modules if not any(_is_named(m, target) for target in targets)}
        unused = [t for t in targets if not any(_is_named(m, t) for m in modules)]
        if not others and not unused:
            return
        theirs = ",".join(known) if isinstance(known, list) else "..."
        odd = f"it has {min(others)}" if others else f"it has no module {unused[0]}"
        raise UserError(
            f"{option} trained other modules than method.{key}=[{','.join(targets)}]: {odd}. A training goes "
            f"on with those of what it starts with; type 'method.{key}=[{theirs}]', or the method= that it was "
            "trained by, such as method=lora or method=locon"
        )

    def starting_weights(
        self, model: LatentDiffusion, folder: Path, option: str
    ) -> dict[str, Tensor]:
        """The adapter's weights.

        Raises:
            UserError: they are of another model.
        """
        wanted = self.trained(model)
        names = {plain_name(name): name for name in wanted}
        found = {names.get(name, name): weight for name, weight in self.tensors(folder).items()}
        otherwise = f"Take a {self.noun} of this base's architecture, or the base that it was trained on (model=...)"
        return fitting(found, wanted, option, otherwise)


def _inside(network: nn.Module, targets: Sequence[str], modules: Sequence[str]) -> list[str]:
    """The names of those targets in a network that are parts of some ``modules``."""
    beginnings = tuple(f"{module}." for module in modules)
    flat = [flat_text_name(name) for name, _ in network.named_modules()] if beginnings else []
    return [
        name
        for name in flat
        if name.startswith(beginnings) and any(_is_named(name, target) for target in targets)
    ]


def _other_networks(option: str, wanted: bool) -> str:
    """Why a training cannot go on from an export, of which only one of the two trained text encoders."""
    if wanted:
        return (
            f"{option} holds no text encoder, and method.text_encoder=true trains one. A training goes on with the "
            "networks of what it starts with; remove method.text_encoder=true, or method.init"
        )
    return (
        f"{option} trained the text encoder too, without which its U-Net computes something else; type "
        "method.text_encoder=true"
    )


def plain_name(name: str) -> str:
    """The name of an adapter's weight without the name of the adapter, as peft stores it.

    >>> plain_name("conv.lora_A.default.weight"), plain_name("conv.lokr_w1.default")
    ('conv.lora_A.weight', 'conv.lokr_w1')
    >>> plain_name("conv.lora_magnitude_vector.default.weight")
    'conv.lora_magnitude_vector'
    """
    parts = [part for part in name.split(".") if part != ADAPTER]
    return ".".join(parts).replace("lora_magnitude_vector.weight", "lora_magnitude_vector")


def plain_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """peft's settings as JSON has them, sets in order."""
    return {
        name: sorted(value) if isinstance(value, set) else getattr(value, "value", value)
        for name, value in settings.items()
    }


def _said(values: dict[str, Any]) -> str:
    """
    >>> _said({"rank": 4, "alpha": 2.0, "factor": -1}), _said({"rank": "", "alpha": ""})
    ('rank 4, alpha 2 and factor -1', 'rank and alpha')
    """
    words = [f"{name} {_plain(value)}".rstrip() for name, value in values.items()]
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _typed(values: dict[str, Any]) -> str:
    return " ".join(f"method.{name}={_plain(value)}" for name, value in values.items())


def _plain(value: Any) -> str:
    if isinstance(value, bool | None):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _is_named(module: str, target: str) -> bool:
    """As peft takes the name of a target."""
    return module == target or module.endswith(f".{target}")
