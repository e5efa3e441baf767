"""The model families: a family's name is its file name, and there is no list to edit."""

import pkgutil

NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))
