"""What people type wrongly, and that the answer says what to type, at once and in plain words.

Collected from what users of diffusers' scripts, kohya's trainer, img2dataset and Hydra are used to.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 10  # 3 on an idle machine; a mistake is answered in 0.3
START = {
    "curate": ["-m", "curate"],
    "train": ["finetune/train.py"],
    "evaluate": ["-m", "evaluate"],
    "sample": ["-m", "evaluate.sample"],
    "retrain": ["-m", "workflows.retrain"],
}
# Words of Hydra, OmegaConf, YAML and Python that say nothing to whoever typed a command.
FOREIGN_WORDS = (
    *("Traceback", "could not be converted", "ListConfig", "DictConfig", "not in 'Train", "Lexer"),
    *("mismatched", "EQUAL", "EOF", "defaults list", "Config search path", "is not Optional"),
    *("full_key", "object_type", "subclass of", "cannot start any token", "usage: ", "Errno"),
)
OPENMOJI, FOLDER = "dataset=openmoji", "dataset=folder"
SDXL = {
    "_class_name": "StableDiffusionXLPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
}

CASES = [
    # options and forms of other programs
    ("curate", ["--dataset", "folder"], "Type dataset=folder"),
    ("curate", ["--dataset=folder"], "Type dataset=folder"),
    ("curate", ["dataset", "folder"], "Type dataset=folder"),
    ("curate", [OPENMOJI, "--dry_run"], "Type dry_run=500"),
    ("curate", ["--input_folder=x"], "Type dataset.root=x"),
    ("train", ["--run.name", "x"], "Type run.name=x"),
    ("train", ["--run.name=x"], "Type run.name=x"),
    ("train", ["--learning_rate", "1e-4"], "Type optim.lr=1e-4"),
    ("train", ["--max_train_steps=1000"], "type train.samples=16000"),
    ("train", ["--pretrained_model_name_or_path=a/b"], "Type model.path=a/b"),
    ("train", ["--train_batch_size", "4"], "Type optim.batch_size=4"),
    ("train", ["--report_to", "wandb"], "Type tracker=wandb"),
    ("train", ["--log_with=tensorboard"], "Type tracker=tensorboard"),
    ("evaluate", ["mine"], "Type run.name=mine"),
    ("evaluate", ["runs/mine"], "Type run.name=mine"),
    ("curate", ["my pics"], "type dataset=folder 'dataset.root=my pics'"),
    # signs between key and value
    ("curate", [OPENMOJI, "split.val", "=", "0.1"], "type split.val=0.1"),
    ("curate", [OPENMOJI, "split.val=", "0.1"], "type split.val=0.1"),
    ("curate", [OPENMOJI, "split.val", "=0.1"], "type split.val=0.1"),
    ("curate", [OPENMOJI, "split.val:0.1"], "type split.val=0.1"),
    ("train", ["optim.lr:1e-4"], "type optim.lr=1e-4"),
    ("curate", [OPENMOJI, "split.val"], "Type split.val=0.05"),
    ("train", ["lora"], "type method=lora"),
    # keys that are not there
    ("curate", ["run=mine", OPENMOJI], "Type run.name=mine"),
    ("evaluate", ["run=mine"], "Type run.name=mine"),
    ("train", ["name=mine"], "did you mean run.name=mine"),
    ("train", ["runname=mine"], "did you mean run.name=mine"),
    ("train", ["lr=1e-4"], "did you mean optim.lr=1e-4"),
    ("train", ["batch_size=4"], "did you mean optim.batch_size=4"),
    ("train", ["resolution=512"], "did you mean model.resolution=512"),
    ("train", ["rank=8"], "did you mean method.rank=8"),
    ("train", ["train.steps=1000"], "type train.samples=16000, which is 1000 steps"),
    ("train", ["train.steps=1000", "optim.batch_size=4"], "type train.samples=4000"),
    ("train", ["train.steps="], "type train.samples="),
    ("train", ["train.epochs=10"], "epochs times pictures: for 10 epochs of 1500 pictures, type train.samples=15000"),
    ("curate", ["data=coco"], "did you mean dataset=coco"),
    ("curate", [OPENMOJI, "minimum=28"], "did you mean filters.clip_similarity.minimum"),
    ("curate", [OPENMOJI, "fraction=30"], "did you mean filters.clip_similarity.fraction"),
    ("curate", [FOLDER, "dataset.path=my pics"], "did you mean 'dataset.root=my pics'"),
    ("curate", [OPENMOJI, "filters.images.min_side_px=3"], "did you mean filters.image.min_side_px=3"),
    ("curate", [OPENMOJI, "filters.clip_similarity=0.28"], "filters.clip_similarity.minimum=0.28"),
    ("train", ["method=full", "method.factor=8"], "it belongs to method=lokr"),
    ("train", ["clip=starter"], "clip belongs to python -m curate and python -m evaluate"),
    ("evaluate", ["dataset=coco"], "dataset belongs to python -m curate"),
    ("evaluate", ["step=250"], "python -m finetune.export RUN step=250"),
    ("evaluate", ["steps=50"], "did you mean sampler.steps=50"),
    ("sample", ["prompt=x", "steps=50"], "did you mean sampler.steps=50"),
    ("sample", ["prompt=x", "cfg_scale=7"], "did you mean sampler.guidance_scale=7"),
    ("sample", ["prompt=x", "seed=7"], "did you mean seeds=7"),
    ("sample", ["prompt=x", "step=250"], "did you mean checkpoints=250"),
    ("sample", ["prompt=x", "denoising_strength=0.5"], "did you mean strength=0.5"),
    ("sample", ["prompt=a", "fox"], "type 'prompt=a fox'"),
    ("sample", ["prompt=x", "strength=0.5"], "type image=FILE as well"),
    ("sample", ["prompt=x", "width=100"], "type width=96"),
    ("sample", ["prompt=x", "best_of=0"], "accepted: >= 1"),
    ("sample", ["prompt=x", "sampler=heun"], "accepted: ddim, ddpm, dpm_solver, euler"),
    ("sample", ["model=starter", "out=x"], "there is nothing to draw; type prompt="),
    ("sample", ["prompt=x", "model=starter"], "type out=FOLDER"),
    ("sample", ["prompt=x", "model=starter", "run.name=a"], "exclude each other"),
    ("sample", ["prompt=x", "model.path=y"], "Type model=starter"),
    ("sample", ["prompt=x", "model=starter", "out=x", "image=no.png"], "image=no.png is no file"),
    ("sample", ["prompt_file=no.txt", "model=starter", "out=x"], "no.txt does not exist"),
    ("sample", ["prompt=x", "model=starter", "out=x", "best_of=2"], "Type clip=vit_b32_openai"),
    ("sample", ["prompt=x", "model=starter", "out=x", "clip=starter"], "type best_of=4"),
    ("sample", ["-m", "prompt=x", "seeds=1,2", "run.name=a"], "seeds=[0,1] without -m"),
    # choices that are not there
    ("curate", ["split.val=0.1"], "dataset needs a choice"),
    ("curate", ["dataset="], "Type dataset=folder"),
    ("curate", ["dataset=my pics"], "type dataset=folder 'dataset.root=my pics'"),
    ("curate", [FOLDER, "clip=ViT-B-32"], "type clip=custom clip.name=ViT-B-32 clip.pretrained="),
    ("curate", [FOLDER, "filters=laion"], "Type filters=laion"),
    ("curate", [OPENMOJI, "+clip=vit_b32_openai"], "type clip=vit_b32_openai once, without +"),
    ("train", ["model=sdxl-base"], "Type model=sdxl"),
    ("train", ["model=a/my-xl"], "type model.path=a/my-xl model.resolution=1024"),
    ("train", ["model=runwayml/stable-diffusion-v1-5"], "type model.path=runwayml/"),
    ("train", ["method=dorra"], "Type method=dora"),
    ("train", ["method=LoRA"], "Type method=lora"),
    ("train", ["method=lora,full"], "type -m method=lora,full"),
    ("train", ["optim=adamw8bit"], "Type optim=adamw"),
    ("evaluate", ["sampler=heun"], "accepted: ddim, ddpm, dpm_solver"),
    # values
    ("curate", [OPENMOJI, "filters.clip_similarity.fraction=30"], "fraction=0.3"),
    ("curate", [OPENMOJI, "filters.clip_similarity.minimum=28"], "minimum=0.28"),
    ("curate", [OPENMOJI, "split.val=10"], "Type split.val=0.1"),
    ("curate", [OPENMOJI, "split.val=5%"], "type split.val=0.05"),
    ("curate", [OPENMOJI, "split.val=0,1"], "type split.val=0.1"),
    ("curate", [OPENMOJI, "split.val=0.1,"], "type split.val=0.1"),
    ("curate", [OPENMOJI, "split.val=null"], "split.val cannot be null; type split.val=0.05"),
    ("curate", [OPENMOJI, "engine.workers=4"], "type engine=processes engine.workers=4"),
    ("curate", [OPENMOJI, "engine=processes", "engine.address=auto"], "type engine=ray engine.address=auto"),
    ("curate", [OPENMOJI, "split.held_out=none.parquet"], "type split.held_out=FILE"),
    ("curate", [OPENMOJI, "dry_run=true"], "dry_run must be a whole number such as 500"),
    ("curate", [OPENMOJI, "dataset.limit=1,000"], "type dataset.limit=1000"),
    ("curate", [OPENMOJI, "dataset.limit=-5"], "Type dataset.limit=5"),
    ("curate", [OPENMOJI, "filters.image.min_side_px=256px"], "type filters.image.min_side_px=256"),
    ("curate", [OPENMOJI, "filters.language.accepted=en"], "type 'filters.language.accepted=[en]'"),
    ("curate", [OPENMOJI, "filters.language.accepted=en,de"], "type 'filters.language.accepted=[en,de]'"),
    ("curate", [OPENMOJI, "filters.duplicates.exact=maybe"], "must be true or false, not 'maybe'"),
    ("train", ["train.samples=1e5"], "type train.samples=100000"),
    ("train", ["optim.lr=fast"], "optim.lr must be a number such as 1e-4, not 'fast'"),
    ("train", ["method.targets=to_q"], "type 'method.targets=[to_q]'"),
    ("train", ["samples.prompts=[a (blue:1.2) cup]"], "type 'samples.prompts=[\"a (blue:1.2) cup\"]'"),
    ("train", ["--sample_prompts=p.txt"], "type 'samples.prompts=[\"a red cup\"]'"),
    ("train", ["--min_snr_gamma=5"], "type objective.weighting=min_snr objective.snr_gamma=5"),
    ("train", ["min_snr_gamma=5"], "type objective.weighting=min_snr objective.snr_gamma=5"),
    ("train", ["--cache_latents"], "always cached, for all runs; remove it"),
    ("train", ["cache_latents"], "always cached, for all runs; remove it"),
    ("train", ["resume=x"], "the same command again resumes; remove it"),
    ("train", ["optimizer_type", "Prodigy"], "ype optim=prodigy"),
    ("train", ["optim.learning_rate=1e-4"], "did you mean optim.lr=1e-4"),
    ("train", ["--lr_warmup_steps=100", "optim.batch_size=4"], "type optim.warmup=400"),
    ("train", ["model.max_token_length=225"], "type model.caption_tokens=225"),
    ("train", ["model.sigma=1"], "there is no key model.sigma; accepted: path"),
    ("train", ["xyzzy=1"], "README.md has a table"),
    ("train", ["model.resolution=32,32"], "type model.resolution=32"),
    ("train", ["model.caption_tokens=100"], "Type model.caption_tokens=150"),
    ("train", ["optim=lion"], "Type optim=adamw"),
    ("train", ["optim.schedule=cosine_with_restarts"], "Type optim.schedule=cosine"),
    ("train", ["heldout.patience=none"], "type heldout.patience=null"),
    ("train", ["optim.mixed_precision=fp32"], "Type optim.mixed_precision=no"),
    ("train", ["optim.schedule=cosin"], "Type optim.schedule=cosine"),
    ("train", ["doctor.captions=maybe"], "doctor.captions=maybe is out of range; accepted: refuse, warn, off"),
    ("train", ["tracker=tensorbord"], "Type tracker=tensorboard"),
    ("train", ["tracker=tensorboard,wandb"], "type 'tracker=[tensorboard,wandb]'"),
    ("curate", [OPENMOJI, "tracker=all"], "accepted: auto, none, tensorboard, wandb, mlflow"),
    ("evaluate", ["tracker=[wandb,aim]"], "tracker=aim is out of range"),
    # names and paths
    ("curate", [OPENMOJI, "run.name="], "Type run.name=mine"),
    ("curate", [OPENMOJI, "run.name=a/b"], "Type run.root=a run.name=b"),
    ("curate", [FOLDER, "dataset.root=/my", "pictures"], "type 'dataset.root=/my pictures'"),
    ("curate", [FOLDER, "dataset.root=Bilder/Übung 1"], "nothing at dataset.root=Bilder/Übung 1"),
    ("curate", [FOLDER, "dataset.root=pic.jpg"], "is a file; type the folder"),
    ("curate", [FOLDER, "dataset.root=C:\\Users\\me\\pics"], "dataset.root=/mnt/c/Users/me/pics"),
    ("curate", ["dataset=coco"], "put into data/coco: annotations/captions_train2017.json"),
    ("curate", ["dataset=table"], "dataset.path needs a value"),
    ("train", ["model.path=x.safetensors"], "x.safetensors cannot be read"),
    ("train", ["model.path=gone.safetensors"], "does not exist"),
    ("train", ["model.path=sdxl"], "StableDiffusionXLPipeline, which is not supported"),
    # experiments
    ("curate", ["experiment=dem"], "Type experiment=demo"),
    ("train", ["experiment=tabs.yaml"], "line 2: a tab stands where YAML wants spaces"),
    ("train", ["experiment=equals.yaml"], "Write optim.lr: 1e-4"),
    ("train", ["experiment=open.yaml"], "cannot be read as YAML"),
    ("evaluate", ["experiment=open.yaml"], "cannot be read as YAML"),
    # runs
    ("train", ["run.name=photgraphs"], "holds drawings, photographs. Type run.name=photographs"),
    ("train", ["data.run=nope", "run.name=x"], "data.run=nope is no curated run"),
    ("train", ["data.run=drawings"], "needs a name for the training"),
    ("train", [], "accelerate launch finetune/train.py run.name=photographs"),
    ("evaluate", [], "no trained run; type first: accelerate launch"),
    ("train", ["-m", "run.name=drawings", "optim.lr=1,fast"], "optim.lr must be a number"),
    ("evaluate", ["-m", "run.name=x", "sampler=ddim,ddpm"], "type -m run.name=a,b"),
    # a retraining
    ("retrain", ["keep=2"], "Type experiment=FILE.yaml, or run.name=NAME"),
    ("retrain", ["experiment=dem"], "Type experiment=demo"),
    ("retrain", ["experiment=demo", "train.samples=100"], "type train.train.samples=100"),
    ("retrain", ["experiment=demo", "optim.lr=1"], "type train.optim.lr=1"),
    ("retrain", ["experiment=demo", "train.lr=1"], "did you mean optim.lr=1"),
    ("retrain", ["experiment=demo", "curate.run.name=x"], "type run.name"),
    ("retrain", ["experiment=demo", "--fail-on-reject"], "Type fail_on_reject=true"),
    ("retrain", ["experiment=demo", "start_from=last"], "Type start_from=base"),
    ("retrain", ["experiment=demo", "fingerprint=hash"], "Type fingerprint=stat"),
    ("retrain", ["experiment=demo", "keep=0"], "accepted: null or > 0"),
    ("retrain", ["experiment=demo", "notify.url=hooks.x.org"], "type notify.url=https://"),
    ("retrain", ["experiment=demo", "launch=torchrum -n 2"], "there is no program torchrum"),
    ("retrain", ["experiment=demo", "--dryrun"], "type --dry-run"),
    ("retrain", ["-m", "experiment=demo", "keep=1,2"], "-m does not work with a retraining"),
    # what this machine does not have
    ("curate", [OPENMOJI, "clip.device=cuda"], "Type clip.device=auto"),
    ("evaluate", ["device=cuda:1"], "Type device=auto"),
    ("evaluate", ["device=gpu"], "accepted: auto, cpu, cuda"),
    ("evaluate", ["precision=fp16"], "precision=fp16 needs a GPU; type precision=bf16"),
    ("evaluate", ["precision=fp32"], "accepted: no, fp16, bf16"),
    ("train", ["optim.mixed_precision=fp16"], "needs a GPU; type optim.mixed_precision=bf16"),
    ("train", ["model=sd15"], "hub cannot be reached. Download it elsewhere and type model.path="),
    ("train", ["model=sdxl"], "hub cannot be reached. Download it elsewhere and type model.path="),
    ("curate", ["dataset=hub", "dataset.path=a/b"], "hub cannot be reached. Fetch it elsewhere"),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with pictures, runs and files that the command lines name."""
    folder = tmp_path_factory.mktemp("work")
    for name in ("my pics", "sdxl", "runs/photographs/curate", "runs/drawings/curate"):
        (folder / name).mkdir(parents=True)
    for name in ("runs/photographs", "runs/drawings"):
        (folder / name / "curate" / "manifest.json").write_text("{}")
    for name, content in {
        "x.safetensors": "",
        "pic.jpg": "",
        "sdxl/model_index.json": json.dumps(SDXL),
        "tabs.yaml": "train:\n\toptim.lr: 1e-4\n",
        "equals.yaml": "train:\n  optim.lr=1e-4\n",
        "open.yaml": "train: {optim.lr: [1\n",
    }.items():
        (folder / name).write_text(content)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Without a GPU and with a hub that takes no connection, which is offline without saying so."""
    home = str(tmp_path_factory.mktemp("hub"))
    proxies = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"), "")
    return proxies | {
        "HF_HOME": home,
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HUB_OFFLINE": "0",
        "CUDA_VISIBLE_DEVICES": "",
    }


@pytest.fixture(scope="module")
def answer(folder, environment):
    """Ask a command; see ``mistakes_server``."""
    server = subprocess.Popen(
        [sys.executable, ROOT / "tests" / "mistakes_server.py"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip

    def ask(command, arguments):
        case = {"command": command, "arguments": arguments}
        server.stdin.write(json.dumps(case | {"folder": str(folder), "environment": environment}))
        server.stdin.write("\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())

    with server:
        yield ask
        server.stdin.close()


@pytest.mark.quick_cases(60)
@pytest.mark.parametrize(
    ("command", "arguments", "says"), CASES, ids=lambda value: " ".join(value) if isinstance(value, list) else None
)  # fmt: skip
def test_a_typical_mistake_is_answered_by_what_to_type(answer, folder, command, arguments, says):
    before = sorted(folder.rglob("*"))
    said = answer(command, arguments)
    assert says in said["err"]
    assert said["code"] == 2
    assert said["err"].startswith("error: ")
    assert "heavy imports: " not in said["err"]
    assert [word for word in FOREIGN_WORDS if word in said["err"]] == []
    assert said["seconds"] < LIMIT_S
    assert sorted(folder.rglob("*")) == before


def test_there_are_forty_and_more():
    assert len({(command, *arguments) for command, arguments, _ in CASES}) == len(CASES) > 40


@pytest.mark.parametrize(
    ("command", "arguments", "says"),
    [
        ("curate", ["--dataset", "folder"], "Type dataset=folder"),
        ("train", ["lr=1e-4"], "did you mean optim.lr=1e-4"),
        ("evaluate", ["run=mine"], "Type run.name=mine"),
        ("curate", [], "usage: python -m curate dataset=..."),
    ],
)
def test_the_commands_themselves_answer_so(environment, command, arguments, says):
    done = subprocess.run(
        [sys.executable, *START[command], *arguments],
        cwd=ROOT, env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert says in done.stderr
    assert done.returncode == 2
    assert done.stdout == ""
