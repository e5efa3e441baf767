"""Published SpikeGPT and RWKV-4 checkpoints: read knowingly, refused whole."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from spiketrain.lm.character_tokenizer import UNKNOWN, character_tokenizer  # noqa: E402
from spiketrain.lm.checkpoint import (  # noqa: E402
    CheckpointError,
    UpstreamChoices,
    load_checkpoint,
    read_checkpoint,
)

DATA = Path(__file__).parent.parent / "data" / "spikegpt"
IDS = torch.arange(24).reshape(2, 12) * 11 % 77


def official():
    return torch.load(DATA / "v77_l3.pth", weights_only=True)


def save(folder, tensors, name="model.pth"):
    torch.save(tensors, folder / name)
    return folder / name


@pytest.mark.parametrize("name", ["v77_l3", "v97_l3"])
def test_a_published_file_is_the_training_model(name):
    found = read_checkpoint(DATA / f"{name}.pth")
    config = found.model.config
    assert (config.neuron_position, config.binary_embedding, config.rescale) == (
        "residual",
        True,
        0,
    )
    wanted = np.load(DATA / f"{name}.npz")
    with torch.no_grad():
        logits = found.model(torch.from_numpy(wanted["tokens"])[None, :-1]).logits[0]
    assert np.abs(logits.numpy() - wanted["logits"]).max() < 1e-4
    said = "\n".join(found.decisions)
    for text in ("same for rwkv4", "binary_embedding true: as the training", "rescale 0: the tra"):
        assert text in said


def test_the_scripts_semantics_can_be_chosen_and_are_said():
    meaning = UpstreamChoices(
        choices={"binary_embedding": False, "rescale": 6, "lif_threshold": 0.1}
    )
    found = read_checkpoint(DATA / "v97_l3.pth", meaning)
    assert not found.model.config.binary_embedding
    assert found.model.blocks[2].lif1.threshold.eq(0.1).all()
    said = "\n".join(found.decisions)
    for text in (
        "binary_embedding false: chosen",
        "rescale 6: chosen",
        "lif_threshold 0.1: chosen",
    ):
        assert text in said


def test_rwkv_semantics_have_no_neurons():
    model = read_checkpoint(DATA / "v77_l3.pth", UpstreamChoices("rwkv4")).model
    assert (model.config.neuron_position, model.config.binary_embedding) == ("none", False)
    assert not [name for name, _ in model.named_parameters() if "lif" in name]


def test_half_precision_and_ffn_pre_files_load(tmp_path):
    tensors = {name: value.bfloat16() for name, value in official().items()}
    ffn = {k: v for k, v in tensors.items() if k.startswith("blocks.0.ffn.")}
    tensors = {k: v for k, v in tensors.items() if not k.startswith("blocks.0.att.")}
    tensors |= {k.replace(".ffn.", ".ffnPre."): v for k, v in ffn.items()}
    model = load_checkpoint(save(tmp_path, tensors))
    assert model.config.pre_ffn
    assert model(IDS).logits.dtype == torch.float32


def hugging_face(**fields):
    torch.manual_seed(0)
    config = transformers.RwkvConfig(
        vocab_size=77, hidden_size=16, num_hidden_layers=5, rescale_every=2, **fields
    )
    model = transformers.RwkvForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("rescaled", [False, True])
def test_hugging_face_rwkv_gives_its_logits_again(tmp_path, rescaled):
    theirs = hugging_face()
    if not rescaled:
        theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        wanted = theirs.eval()(IDS).logits  # scales the weights in place
    if rescaled:
        theirs.save_pretrained(tmp_path)
    found = read_checkpoint(tmp_path, UpstreamChoices(rescaled=rescaled))
    with torch.no_grad():
        logits = found.model(IDS).logits
    torch.testing.assert_close(logits, wanted, atol=2e-4, rtol=1e-3)
    assert "model_type rwkv" in found.decisions[0]
    assert ("undone" if rescaled else "--rescaled") in found.decisions[-1]


def test_every_wrong_key_is_listed_at_once(tmp_path):
    tensors = official()
    del tensors["blocks.1.att.time_decay"]
    tensors["blocks.2.att.time_sigh"] = torch.zeros(3)
    tensors["head.weight"] = torch.zeros(2, 2)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(save(tmp_path, tensors))
    for part in (
        "blocks.1.att.time_decay is missing",
        "blocks.2.att.time_sigh is unknown",
        "head.weight is (2, 2), expected (77, 64)",
    ):
        assert part in str(caught.value)


def test_what_cannot_be_is_refused(tmp_path):
    path = DATA / "v77_l3.pth"
    for meaning, message in (
        (UpstreamChoices("rwkv5"), "semantics must be one of"),
        (UpstreamChoices(choices={"hidden_size": 3}), "choices must be among"),
        (UpstreamChoices(choices={"rescale": -1}), "rescale must be"),
        (UpstreamChoices(rescaled=True), "rescaled says nothing"),
    ):
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(path, meaning)
    egru = DATA.parent / "egru" / "lm_tied_noproj.cpt"
    with pytest.raises(CheckpointError, match="semantics says nothing"):
        read_checkpoint(egru, UpstreamChoices("rwkv4"))
    for content, message in (
        ({"a": torch.zeros(1)}, r"emb\.weight"),
        ({"emb.weight": torch.zeros(3), "ln_out.weight": torch.zeros(1)}, "two dimensions"),
        ({"emb.weight": 3}, "tensors by name"),
        ([1, 2], "tensors by name"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(save(tmp_path, content))
    far = official() | {"blocks.900.ln1.weight": torch.zeros(64)}
    with pytest.raises(CheckpointError, match="at most 256 blocks"):
        load_checkpoint(save(tmp_path, far))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8"])
def test_characters_become_a_tokenizer(tmp_path, encoding):
    from spiketrain.runtime.tokenizer import load_tokenizer

    text = 'So "it" is:\n\u00e9\u4e2d\U0001f98a <0x41>'
    table = dict(enumerate(sorted(set(text))))
    content = json.dumps(table, ensure_ascii=False).encode(encoding)
    (tmp_path / "tokenizer.json").write_text(json.dumps(character_tokenizer(content)))
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    ids = tokenizer.encode(text)
    assert ids == [sorted(set(text)).index(c) for c in text]
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode("So~it") == tokenizer.encode("Soit")


def test_an_unknown_character_is_the_published_stand_in():
    made = character_tokenizer(json.dumps({"0": "a", "1": UNKNOWN}).encode())
    assert made["model"]["unk_token"] == UNKNOWN


@pytest.mark.parametrize("table", [{}, [], {"1": "a"}, {"0": "ab"}, {"0": "a", "1": "a"}])
def test_vocabularies_that_are_not_of_characters_are_refused(table):
    with pytest.raises(ValueError, match="character"):
        character_tokenizer(json.dumps(table).encode())
