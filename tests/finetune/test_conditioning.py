"""Named tensors stay in step, and a name that only a model knows reaches the loss and the export."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from finetune.conditioning import Conditioning
from finetune.heldout import HeldoutGrid
from finetune.models import MODELS, sd
from finetune.opened_run import load_run


def numbered(count: int = 5) -> Conditioning:
    """Sample i has i in every entry."""
    rows = torch.arange(float(count))
    return Conditioning({"hidden": rows[:, None, None].expand(-1, 3, 2), "pooled": rows[:, None]})


def samples(conditioning: Conditioning) -> list[float]:
    """Which samples these are, the same by every entry."""
    found = {tuple(t.flatten(1)[:, 0].tolist()) for t in conditioning.tensors.values()}
    assert len(found) == 1
    return list(found.pop())


def test_entries_stay_in_step():
    whole = numbered()
    assert len(whole) == 5
    assert samples(whole.take(slice(1, 3))) == [1, 2]
    assert samples(whole.take([4, 0, 0])) == [4, 0, 0]
    assert [samples(part) for part in whole.split(2)] == [[0, 1], [2, 3], [4]]
    assert samples(Conditioning.cat(list(whole.split(2)))) == [0, 1, 2, 3, 4]
    assert whole.half().float()["pooled"].dtype == torch.float32
    assert whole.to("meta")["hidden"].device.type == "meta"


def test_caption_dropout_drops_the_captions_entries_together_and_the_pictures_never():
    whole = Conditioning({**numbered(4).tensors, "control": torch.ones(4, 1, 2, 2)})
    empty = Conditioning(
        {"hidden": torch.full((1, 3, 2), -1.0), "pooled": torch.full((1, 1), -1.0)}
    )
    dropped = whole.drop(torch.tensor([False, True, False, True]), empty)
    assert dropped["hidden"][:, 2, 1].tolist() == dropped["pooled"][:, 0].tolist() == [0, -1, 2, -1]
    assert torch.equal(dropped["control"], whole["control"])
    assert samples(numbered(4)) == [0, 1, 2, 3]  # the original is left as it was


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match="one number of samples"):
        Conditioning({"hidden": torch.ones(2, 3), "pooled": torch.ones(3)})
    with pytest.raises(ValueError, match="one number of samples"):
        Conditioning({})
    hidden = Conditioning({"hidden": torch.ones(5, 3, 2)})
    with pytest.raises(ValueError, match="only some of the samples have pooled"):
        Conditioning.cat([hidden, numbered()])
    with pytest.raises(ValueError, match="no pooled to drop"):
        hidden.drop(torch.ones(5, dtype=torch.bool), numbered(1))


class Pooled(sd.StableDiffusion):
    """A model with a second entry, which shifts its prediction; what it is given is written down."""

    seen: list[tuple[bool, Conditioning]]

    def encode_tokens(self, conditioning):
        found = super().encode_tokens(conditioning)
        pooled = found["hidden"].mean(1)
        return Conditioning(found.tensors | {"pooled": pooled}, found.of_picture)

    def predict(self, network, noisy, timesteps, conditioning):
        self.seen.append((torch.is_grad_enabled(), conditioning))
        shift = conditioning["pooled"][:, 0, None, None, None]
        return super().predict(network, noisy, timesteps, conditioning) + shift

    def caption_fingerprint(self):
        return f"pooled {super().caption_fingerprint()}"


loaded: list[Pooled] = []


def load_model(config, device="cpu"):
    """What ``finetune.models`` calls in the module of a pipeline's parts."""
    parts = sd.load_model(config, device)
    model = Pooled(**{part.name: getattr(parts, part.name) for part in fields(parts) if part.init})
    model.seen = []
    loaded.append(model)
    return model


def test_a_models_own_entry_travels_from_the_cache_to_the_export(
    make_config, run_training, pipeline_dir, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "pooled"
    shutil.copytree(pipeline_dir, folder)
    index = json.loads((folder / "model_index.json").read_bytes())
    index |= {"_class_name": "PooledPipeline", "pooler": ["diffusers", "Pooler"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    monkeypatch.setitem(MODELS, __name__, MODELS["finetune.models.sd"] | {"pooler": "Pooler"})
    # The memory forecast goes forward with gradients, too, and is no batch.
    monkeypatch.setattr("finetune.forecast.update_bytes", lambda *_: 0)
    config = make_config(**{"model.path": str(folder), "train.caption_dropout": 0.5})
    run_training(config)
    model = loaded.pop()

    [path] = (Path(config.run.root) / ".cache" / "conditioning").rglob("*.safetensors")
    with safe_open(path, "pt") as cached:
        assert {"hidden", "pooled"} <= set(cached.keys())
    batches = [c for with_gradient, c in model.seen if with_gradient]
    empty = model.encode_captions([""])
    dropped = 0
    assert sum(map(len, batches)) == 32
    for batch in batches:
        for hidden, pooled in zip(batch["hidden"], batch["pooled"], strict=True):
            torch.testing.assert_close(pooled, hidden.mean(0), atol=1e-3, rtol=1e-2)
            same = torch.equal(hidden, empty["hidden"][0])
            assert same == torch.equal(pooled, empty["pooled"][0])
            dropped += same
    assert 0 < dropped < 32
    assert len(model.seen[-1][1]) == 1  # the comparison of the export, made with the entry too
    assert "largest difference" in capsys.readouterr().out
    assert (config.folder / "export").is_dir()
    _check_one_cell(config)


@torch.no_grad()
def _check_one_cell(config):
    """The stored loss of the base model in one cell of the grid, computed by hand."""
    run = load_run(config.run.folder)
    items, model = run.items("val", 4), run.model()
    with np.load(config.folder / "heldout.npz") as curve:
        stored = curve["val"][0][2, 1, 0]
    grid = HeldoutGrid(bins=3, draws=2)
    t = int(grid.timesteps(1000)[1, 0])
    noise = grid.noise(items.keys[2], 1, 0, torch.Size([4, 4, 4]))
    alpha, sigma = model.schedule.alphas[t], model.schedule.sigmas[t]
    noisy = alpha * items.latents[2] + sigma * noise
    hidden, pooled = (items.conditioning[name][2:3] for name in ("hidden", "pooled"))
    predicted = model.unet(noisy[None], t, encoder_hidden_states=hidden).sample + pooled[0, 0]
    error = predicted[0] - (alpha * noise - sigma * items.latents[2])
    assert stored == pytest.approx(error.square().mean().item(), rel=1e-5)
    assert abs(pooled[0, 0]) > 0.1  # it would otherwise not show
