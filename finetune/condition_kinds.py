"""What a ControlNet can follow: edges of the pictures, or files beside them; see ``finetune.conditions``."""

CANNY, FILE = CONDITIONS = ("canny", "file")
