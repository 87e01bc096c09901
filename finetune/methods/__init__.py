"""Training methods, one file each; every module of this folder is imported, and registers its method."""

from importlib import import_module
from pkgutil import iter_modules

from finetune.methods.interface import METHODS, Method, prepare, prepare_model, register_method

__all__ = ["METHODS", "Method", "prepare", "prepare_model", "register_method"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
