"""Llama and Qwen checkpoints: copied exactly, then hybrid or all-linear."""

import json
import math

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from spiketrain.lm.conversion.transformer import (  # noqa: E402
    HALF_LIVES,
    fit_decays,
    from_transformer,
    match_outputs,
    sensitive_layers,
    spikingbrain_from_transformer,
)
from spiketrain.lm.conversion.transformer_names import our_name, their_name  # noqa: E402
from spiketrain.lm.conversion.transformer_settings import transformer_config  # noqa: E402
from spiketrain.lm.shards import Held, Shards  # noqa: E402

IDS = torch.arange(48).reshape(2, 24) * 7 % 61
SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
KINDS = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM, {}),
    "tied llama": (
        transformers.LlamaConfig,
        transformers.LlamaForCausalLM,
        {"tie_word_embeddings": True, "rope_theta": 5e5},
    ),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM, {}),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM, {"head_dim": 12}),
}


def theirs(kind, **fields):
    config, model, own = KINDS[kind]
    torch.manual_seed(0)
    return model(config(**(SIZES | own | fields))).eval()


def copied(kind, folder, **fields):
    model = theirs(kind, **fields)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("bias"):
                value.normal_(std=0.2)
    model.save_pretrained(folder, max_shard_size="20KB")
    settings = json.loads((folder / "config.json").read_text())
    return model, from_transformer(Shards(folder), settings)


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_gives_the_logits_of_transformers(kind, tmp_path):
    model, copy = copied(kind, tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    with torch.no_grad():
        torch.testing.assert_close(copy(IDS).logits, model(IDS).logits, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", ["hybrid-spread", "linear-published", "linear"])
def test_a_converted_model_keeps_every_weight_and_starts_with_the_decays_asked(variant, tmp_path):
    _, teacher = copied("qwen3", tmp_path)
    student = spikingbrain_from_transformer(teacher, variant)
    own, given = student.state_dict(), teacher.state_dict()
    assert given.keys() <= own.keys()
    assert all(torch.equal(own[name], value) for name, value in given.items())
    new = {name.split(".attn.")[1] for name in own.keys() - given.keys()}
    assert new == {"gk_proj.0.weight", "gk_proj.1.weight", "gk_proj.1.bias", "g_norm.weight"}
    config = student.config
    assert config.attn_layers == ([1] if variant == "hybrid-spread" else [])
    assert config.window_keys == 64 // 8
    decay = torch.sigmoid(student.model.layers[0].attn.gk_proj[1].bias) ** (1 / 16)
    if variant == "hybrid-spread":
        halves = math.log(0.5) / decay.log()
        ends = torch.tensor([8.0, 64.0])
        torch.testing.assert_close(halves[[0, 11]], ends, atol=0.1, rtol=0)
        assert (halves[:12].diff() > 0).all()
    else:
        assert decay.eq(decay[0]).all()
        half_life = 2 if variant == "linear" else 16
        assert decay[0].item() == pytest.approx(0.5 ** (1 / half_life))


def test_fitted_decays_are_the_best_of_those_tried(tmp_path):
    _, teacher = copied("llama", tmp_path)
    torch.manual_seed(3)  # the gates' small weights
    student = spikingbrain_from_transformer(teacher, "linear")
    best = fit_decays(student, teacher, IDS)
    losses = {}
    for half in HALF_LIVES:
        torch.manual_seed(3)
        other = spikingbrain_from_transformer(teacher, "linear-published")
        kept = 0.5 ** (16 / half)  # sigmoid(bias), whose 16th root is the decay
        for block in other.model.layers:
            torch.nn.init.constant_(block.attn.gk_proj[1].bias, math.log(kept / (1 - kept)))
        match_outputs(other, teacher, IDS)
        with torch.no_grad():
            losses[half] = other(IDS, labels=IDS).loss.item()
    assert best == min(losses, key=losses.__getitem__)
    with torch.no_grad():
        assert student(IDS, labels=IDS).loss.item() == pytest.approx(losses[best], rel=1e-5)


def test_matched_outputs_have_the_strength_of_the_teachers(tmp_path):
    _, teacher = copied("llama", tmp_path)
    student = spikingbrain_from_transformer(teacher, "linear")
    match_outputs(student, teacher, IDS)
    strengths = []
    for model in (teacher, student):
        found = []
        hook = model.model.layers[0].attn.o_proj.register_forward_pre_hook(
            lambda _, given, found=found: found.append(given[0])
        )
        with torch.no_grad():
            model(IDS)
        hook.remove()
        strengths.append(found[0].square().mean().sqrt().item())
    assert strengths[1] == pytest.approx(strengths[0], rel=0.2)


def test_layers_that_say_nothing_are_the_first_to_become_linear(tmp_path):
    _, teacher = copied("llama", tmp_path)
    with torch.no_grad():
        for silent in (0, 2):
            teacher.model.layers[silent].attn.o_proj.weight.mul_(1e-4)
    starts = torch.arange(16)[:, None] * 3
    # within the window, so that windows alone cost nothing
    ids = teacher.generate(starts, max_new_tokens=8, do_sample=False, eos_token_id=None)
    assert sensitive_layers(teacher, ids) == [1]


def test_names_go_there_and_back(tmp_path):
    for name in theirs("qwen3").state_dict():
        assert their_name(our_name(name)) == name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "gpt2"}, "model_type must be one of"),
        ({"hidden_act": "gelu"}, "hidden_act must be 'silu', got 'gelu'"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "default, linear, llama3, got 'yarn'"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "rotary_scaling of llama3 must have factor"),
        ({"use_sliding_window": True}, "use_sliding_window must be False"),
        ({"num_hidden_layers": None}, "num_hidden_layers is missing"),
        ({"num_hidden_layers": 2.0}, r"num_hidden_layers must be a whole number in .*, got 2.0"),
        ({"max_position_embeddings": "x"}, "max_position_embeddings must be a whole number"),
        ({"rms_norm_eps": None}, "rms_norm_eps is missing"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings must be true or false, got 'no'"),
        ({"rope_theta": "x"}, r"rope_theta must be a number in .*, got 'x'"),
        ({"rope_scaling": [1]}, r"rope_scaling must be an object, got \[1\]"),
        ({"rope_scaling": {"factor": 2.0}}, "rope_scaling must have a rope_type"),
        (
            {"rope_parameters": {"rope_type": "default"}, "rope_scaling": {"type": "linear"}},
            r"rope type must be one, got \['default', 'linear'\]",
        ),
        (
            {"rope_parameters": {"full_attention": {"rope_theta": 1e6}}},
            "rope_parameters must have a rope_type",
        ),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor must be 1, got 0.5"),
        ({"model_type": "llama", "attention_bias": True}, "attention_bias must be False, got True"),
        ({"model_type": "llama", "mlp_bias": True}, "mlp_bias must be False, got True"),
    ],
)
def test_a_checkpoint_that_would_compute_something_else_is_refused(fields, message):
    settings = {"model_type": "qwen2", "rope_theta": 1e6} | SIZES | fields
    with pytest.raises(ValueError, match=message):
        transformer_config(settings)


@pytest.mark.parametrize(
    ("kind", "name", "value", "problem"),
    [
        ("llama", "o_proj.bias", torch.zeros(32), r"layers\.1\.attn\.o_proj\.bias is unknown"),
        ("llama", "q_proj.bias", torch.zeros(32), r"layers\.1\.attn\.q_proj\.bias is unknown"),
        ("qwen2", "q_proj.bias", None, r"layers\.1\.attn\.q_proj\.bias is missing"),
        ("qwen2", "k_proj.bias", torch.zeros(3), r"k_proj\.bias is \(3,\), expected \(16,\)"),
        ("qwen3", "k_norm.weight", None, r"layers\.1\.attn\.k_norm\.weight is missing"),
        ("qwen2", "v_proj.bias", torch.full((16,), torch.nan), r"v_proj\.bias at \(0,\) must be"),
    ],
)
def test_keys_that_the_network_does_not_have_or_lacks_are_refused(kind, name, value, problem):
    model = theirs(kind)
    tensors = Held(model.state_dict())
    key = f"model.layers.1.self_attn.{name}"
    if value is None:
        del tensors[key]
    else:
        tensors[key] = value
    with pytest.raises(ValueError, match=problem):
        from_transformer(tensors, model.config.to_dict())


def test_a_teacher_with_linear_layers_is_refused(tmp_path):
    _, teacher = copied("llama", tmp_path)
    student = spikingbrain_from_transformer(teacher)
    with pytest.raises(ValueError, match=r"teacher's attn_layers must be all 3, got \[1\]"):
        spikingbrain_from_transformer(student)
    with pytest.raises(ValueError, match="variant must be one of"):
        spikingbrain_from_transformer(teacher, "mixed")
