"""What a GGUF file says of where it comes from."""

from spiketrain.lm.sources.gguf.metadata import Metadata

_KEYS = ("name", "license", "quantized_by")
_PREFIXES = ("source.", "base_model.")
_SECTION = "general."
_MAX_BYTES = 4096


def provenance(metadata: Metadata) -> dict[str, str]:
    """Texts of `general.name`, `.license`, `.quantized_by`, `.source.*` and `.base_model.*`.

    Names are without `general.`.  A character that cannot be printed becomes a space.  Raises
    GgufError where a value is no text.
    """
    texts: dict[str, str] = {}
    for key in metadata:
        name = key.removeprefix(_SECTION)
        if key == name or not (name in _KEYS or name.startswith(_PREFIXES)):
            continue
        if name.endswith(".count"):
            texts[name] = str(metadata.integer(key))
        else:
            texts[name] = _printable(metadata.text(key, most=_MAX_BYTES))
    return texts


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
