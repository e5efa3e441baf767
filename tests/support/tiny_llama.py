"""The recipe of a tiny Llama, the teacher of conversions."""

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
