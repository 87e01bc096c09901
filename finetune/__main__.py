"""``python -m finetune`` is ``finetune/train.py`` in one process."""

from curate import command
from finetune.train import main

command.run(main)
