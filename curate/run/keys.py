"""Which groups and keys each command has, from its YAML and the schemas, and which of them a name may mean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from curate.run.overrides import CONF

FOREIGN = {
    "learning_rate": "optim.lr",
    "train_batch_size": "optim.batch_size",
    "gradient_accumulation_steps": "optim.gradient_accumulation",
    "lr_scheduler": "optim.schedule",
    "pretrained_model_name_or_path": "model.path",
    "network_dim": "method.rank",
    "network_alpha": "method.alpha",
    "output_dir": "run.root",
    "output_folder": "run.root",
    "output_name": "run.name",
    "url_list": "dataset.path",
    "input_folder": "dataset.root",
    "input_dir": "dataset.root",
    "clip_model": "clip.name",
    "threshold": "filters.clip_similarity.minimum",
    "minimum": "filters.clip_similarity.minimum",
    "name": "run.name",
    "num_inference_steps": "sampler.steps",
    "cfg_scale": "sampler.guidance_scale",
    "denoising_strength": "strength",
    "init_image": "image",
    "seed": "seeds",
    "step": "checkpoints",
    "mixed_precision": "optim.mixed_precision",
    "report_to": "tracker",
    "log_with": "tracker",
    "unet_lr": "optim.lr",
    "train_text_encoder": "method.text_encoder",
    "cache_text_encoder_outputs": "cache.captions",
    "caption_dropout_rate": "train.caption_dropout",
    "ip_noise_gamma": "objective.input_perturbation",
    "network_weights": "method.init",
    "ema_decay": "ema.decay",
    "checkpoints_total_limit": "checkpoint.keep",
    "validation_split": "split.val",
    "train_data_dir": "dataset.root",
    "instance_data_dir": "dataset.root",
    "class_tokens": "dataset.caption",
    "instance_prompt": "dataset.caption",
    "trigger_word": "dataset.trigger",
    "samples": "train.samples",  # which is a group, too
}
"""Names of diffusers' scripts, kohya's and img2dataset's, and names cut short; our keys for the same.

What takes more than another name is in ``curate.run.foreign``.
"""


SCHEMAS = {
    "curate": "curate.pipeline.config",
    "train": "finetune.config",
    "evaluate": "evaluate.config",
    "sample": "evaluate.sample_config",
    "retrain": "workflows.retraining.config",
}
"""Each section and the module that registers its schema.

Imports follow the data, evaluate -> finetune -> curate, so that nothing here may import what checks
the other commands' sections. Each module is loaded by its name, and only to check an experiment.
"""


@dataclass(frozen=True)
class Key:
    """A key of a command.

    Attributes:
        name: dotted.
        hint: the type of its value, without None.
        default: None where there is none.
        nullable: whether it may be null.
    """

    name: str
    hint: Any
    default: Any
    nullable: bool

    @property
    def is_group(self) -> bool:
        """Whether it holds keys and no value."""
        return isinstance(self.hint, type) and is_dataclass(self.hint)

    @property
    def kind(self) -> str:
        """What a value of it is, in words."""
        kinds = {int: "a whole number", float: "a number", bool: "true or false"}
        return "a list" if get_origin(self.hint) is list else kinds.get(self.hint, "a text")


def sections() -> list[str]:
    """The sections of all commands, in the order of the work."""
    order = ("curate", "train", "evaluate", "sample")
    return [name for name in order if (CONF / f"{name}.yaml").is_file()]


@cache
def groups(section: str) -> dict[str, str]:
    """The groups of a section, each with the default choice, or "" where it is left to the user."""
    content = yaml.safe_load((CONF / f"{section}.yaml").read_text("utf-8"))
    pairs = [
        pair for entry in content["defaults"] if isinstance(entry, dict) for pair in entry.items()
    ]
    return {
        group: "" if choice == MISSING else choice for group, choice in pairs if group != "hydra"
    }


def help_template(section: str) -> str:
    """The help of a command as its YAML holds it."""
    content = yaml.safe_load((CONF / f"{section}.yaml").read_text("utf-8"))
    return content["hydra"]["help"]["template"]


def example(section: str, key: str) -> str:
    """The value that the help of a command shows for a key; "" if it shows none."""
    found = re.search(rf"(?<![\w.]){re.escape(key)}=(\S+)", help_template(section))
    return found[1] if found else ""


def choices_with(group: str, name: str) -> list[str]:
    """The choices of a group whose schema has a field, sorted."""
    schemas = {
        schema.removesuffix(".yaml"): OmegaConf.get_type(node.node)
        for schema, node in ConfigStore.instance().repo.get(group, {}).items()
        if schema.startswith("_")
    }
    having = {schema for schema, found in schemas.items() if name in _names(found)}
    chosen = {
        file.stem: yaml.safe_load(file.read_text("utf-8"))["defaults"]
        for file in (CONF / group).glob("*.yaml")
    }
    return sorted(choice for choice, defaults in chosen.items() if having & {*map(str, defaults)})


def _names(schema: Any) -> list[str]:
    return [known.name for known in fields(schema)] if is_dataclass(schema) else []


def keys(section: str) -> dict[str, Key]:
    """Every key of a section by name, those of all choices of its groups, in the order of the schemas."""
    repo = ConfigStore.instance().repo
    found: dict[str, Key] = {}
    for prefix, nodes in [
        ("", repo),
        *((f"{group}.", repo.get(group, {})) for group in groups(section)),
    ]:
        for name, node in nodes.items():
            is_schema = name == f"_{section}.yaml" if not prefix else name.startswith("_")
            schema = OmegaConf.get_type(node.node) if is_schema else None
            if schema is not None and is_dataclass(schema):
                for key in _walk(schema, prefix):
                    found.setdefault(key.name, key)
    return found


def _walk(schema: Any, prefix: str) -> Iterator[Key]:
    hints = get_type_hints(schema)
    for known in fields(schema):
        options = get_args(hints[known.name]) if _is_union(hints[known.name]) else ()
        hint = next((kind for kind in options if kind is not NoneType), hints[known.name])
        default = None if known.default in (NO_DEFAULT, MISSING) else known.default
        yield (key := Key(prefix + known.name, hint, default, NoneType in options or hint is Any))
        if key.is_group:
            yield from _walk(hint, f"{key.name}.")


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType)


def meant(name: str, section: str) -> list[str]:
    """The keys and groups of a section that a name may mean, the likeliest first; at most three."""
    known, tops = keys(section), groups(section)
    valued = [key for key in known if not known[key].is_group]
    first, dot, rest = name.partition(".")
    last = rest.rpartition(".")[2] or first
    if (ours := FOREIGN.get(last)) in known and (not dot or ours != name):
        return [ours]
    if written_together := [key for key in (*valued, *tops) if _bare(key) == _bare(name)]:
        return written_together[:3]
    if name in known and name not in tops and known[name].is_group:
        return _inside(name, valued)
    near = get_close_matches(first, [*tops, *(key for key in known if "." not in key)], n=1)
    instead = near[0] + dot + rest if near and first != near[0] else ""
    same = [key for key in valued if key.rpartition(".")[2] == last.replace("-", "_")]
    is_known = instead in known or instead in tops
    if is_known and (dot or not same):
        is_group = instead not in tops and known[instead].is_group
        return _inside(instead, valued) if is_group else [instead]
    if same:
        return same[:3]
    return get_close_matches(name, [*valued, *tops], n=1, cutoff=0.8)


def _bare(key: str) -> str:
    """A key without what stands between its words: ``run.name``, ``run_name`` and ``runname`` are alike."""
    return re.sub(r"[._-]", "", key).lower()


def _inside(group: str, valued: list[str]) -> list[str]:
    """The keys to type for a group that takes no value itself: its name, or the first three."""
    inside = [key for key in valued if key.startswith(f"{group}.")]
    return [f"{group}.name"] if f"{group}.name" in inside else inside[:3]


def handed_on(name: str, section: str, near: bool = False) -> list[str]:
    """The keys of other commands that a retraining hands on and ``name`` may be: ``optim.lr`` => ``train.optim.lr``.

    Args:
        name: as typed. section: of the command; none but a retraining hands keys on.
        near: also those that are spelled alike.
    """
    if section != "retrain":
        return []
    found = []
    for other in ("curate", "train", "evaluate"):
        import_module(SCHEMAS[other])
        is_known = name in groups(other) or name in keys(other)
        names = [name] if is_known else meant(name, other) if near else []
        found += [f"{other}.{each}" for each in names]
    return found


def owners(key: str, section: str) -> list[str]:
    """The other sections that have the group, or whose help shows the key; none where the group is this one's."""
    group = key.partition(".")[0]
    if group in groups(section):
        return []
    return [
        other
        for other in sections()
        if other != section and (group in groups(other) or example(other, key))
    ]
