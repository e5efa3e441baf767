"""The model families in torch, one module each; a family's name is its file name."""

import pkgutil

NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))
