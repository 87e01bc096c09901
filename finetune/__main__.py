"""``python -m finetune`` is ``finetune/train.py`` in one process."""

from curate.run import cli as command
from finetune.train import main

command.run(main, "train")
