"""Print the build requirements of pyproject.toml, one a line, for an environment that builds.

An editable install rebuilds on import, so its environment keeps the build tools.
"""

from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10: pip brings the same parser
    from pip._vendor import tomli as tomllib  # type: ignore[import-not-found,no-redef]

ROOT = Path(__file__).parent.parent

if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    print("\n".join(project["build-system"]["requires"]))
