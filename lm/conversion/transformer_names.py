"""Names of a Transformer's tensors: those of Hugging Face and ours; needs no torch."""

_NAMES = (
    ("model.embed_tokens.", "model.embeddings."),
    (".self_attn.", ".attn."),
    (".input_layernorm.", ".attn_norm."),
    (".post_attention_layernorm.", ".mlp_norm."),
)


def our_name(name: str) -> str:
    """A tensor's name here, given Hugging Face's."""
    for theirs, ours in _NAMES:
        name = name.replace(theirs, ours)
    return name


def their_name(name: str) -> str:
    """Hugging Face's name of a tensor, given ours."""
    for theirs, ours in _NAMES:
        name = name.replace(ours, theirs)
    return name
