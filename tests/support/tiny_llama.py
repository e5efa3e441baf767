"""A tiny Llama, the teacher of conversions: a recipe, and a Hugging Face directory."""

from byte_level import byte_level

TEACHER = """
name = "tiny-llama"
[model]
family = "llama"
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
intermediate_size = 48
context = 32
[data]
train = "tales.txt"
valid = "tales.txt"
vocab_size = 300
[optimizer]
learning_rate = 1e-2
warmup_tokens = 500
[run]
tokens = 12_000
batch = 4
steps = 32
threads = 1
precision = "float32"
evaluate_tokens = 200
"""


def llama_directory(folder, vocab_size=256):
    """A Hugging Face directory of an untrained Llama with a tokenizer of 256 bytes, and a text."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=vocab_size, **sizes, **heads, bos_token_id=1, eos_token_id=7)
    source, text = folder / "source", folder / "text.txt"
    LlamaForCausalLM(config).save_pretrained(source)
    (source / "generation_config.json").unlink()
    (source / "tokenizer.json").write_text(byte_level())
    text.write_text("The hen and the fox saw the moon in the well. " * 50)
    return source, ("--recipe", "transformer-to-spiking", "--calib", text)
