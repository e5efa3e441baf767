"""The model families in torch, one package each; a family's name is its folder's name."""

import pkgutil

NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))
