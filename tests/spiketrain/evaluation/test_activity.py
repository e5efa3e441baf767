import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiketrain import runtime
from spiketrain.evaluation import rapl
from spiketrain.evaluation.activity import measure_activity, tokens_of
from spiketrain.evaluation.energy import energy, operation
from spiketrain.evaluation.expansions import expand
from spiketrain.evaluation.recording import record
from spiketrain.evaluation.sources import open_source
from spiketrain.evaluation.synops import synops_by_neurobench
from spiketrain.evaluation.words import WordTokenizer
from spiketrain.runtime.errors import DataError
from spiketrain.runtime.package import read_package


def tokens(count=60, seed=5):
    return np.random.default_rng(seed).integers(0, 256, count)


@pytest.mark.parametrize("name", ["egru", "egru-float32", "spikegpt"])
def test_a_recording_agrees_with_the_counters(models, name):
    model = models[name]
    report, recording = measure_activity(model, tokens(), 60)
    layers = [row for row in report["layers"] if row["firing_rate"] is not None]
    by_name = {row["name"]: row for row in layers}
    for place, counts in recording.items():
        layer = place.replace(".lif1", ".att").replace(".lif2", ".ffn")
        assert by_name[layer]["firing_rate"] == pytest.approx(float((counts != 0).mean()), abs=0)
        assert by_name[layer]["activation_sparsity"] == 1 - by_name[layer]["firing_rate"]
    assert set(report["units"]) == set(recording)


def test_silent_rows_are_those_whose_unit_did_not_fire(models):
    report, recording = measure_activity(models["egru"], tokens(), 60)
    fired = {place: (counts != 0).sum(axis=1) for place, counts in recording.items()}
    sizes = {place: counts.shape[1] for place, counts in recording.items()}
    own = [np.concatenate([[0], fired[f"layers.{i}"][:-1]]) for i in range(3)]
    read = [own[0].sum(), (own[1] + fired["layers.0"]).sum(), (own[2] + fired["layers.1"]).sum()]
    rows = [sizes["layers.0"], sizes["layers.0"] + sizes["layers.1"]]
    rows.append(sizes["layers.1"] + sizes["layers.2"])
    for layer in range(3):
        expected = 1 - read[layer] / (60 * rows[layer])
        assert report["layers"][layer]["silent_row_fraction"] == pytest.approx(expected)
    head = report["layers"][-1]["silent_row_fraction"]
    assert head == pytest.approx(1 - fired["layers.2"].mean() / sizes["layers.2"])


def test_rows_of_events_are_those_that_are_skipped_or_read(models):
    for name in ("spikegpt", "spikegpt-counts", "spikingbrain"):
        model = models[name]
        report, _ = measure_activity(model, tokens(), 0)
        for row, rows in zip(report["layers"], model.event_rows, strict=True):
            if rows:
                assert 0 < row["silent_row_fraction"] < 1
            else:
                assert row["silent_row_fraction"] is None


def test_neurobench_operations_are_pairs_of_non_zeros(models):
    model = models["egru"]
    recording = record(model, tokens(20))
    tensors = read_package(model.path).tensors
    sizes = model.config["hidden_sizes"]
    dense = effective = 0
    for at in range(20):
        for layer in range(3):
            products = []
            if layer:
                products.append(("input", recording[f"layers.{layer - 1}"][at]))
            before = recording[f"layers.{layer}"][at - 1] if at else np.zeros(sizes[layer])
            products.append(("recurrent", before))
            for kind, events in products:
                weight = tensors[f"layers.{layer}.{kind}.weight"]
                effective += int(((events != 0)[:, None] & (weight != 0)).sum())
                dense += weight.size
        head = tensors["head.weight"]
        effective += int(((recording["layers.2"][at] != 0)[:, None] & (head != 0)).sum())
        dense += head.size
    found = synops_by_neurobench(model, recording)
    assert found == {"dense": dense, "effective_macs": effective, "effective_acs": 0}


@pytest.mark.parametrize("name", ["spikegpt-counts", "spikingbrain"])
def test_spike_counts_are_recorded_where_products_read_them(models, name):
    model = models[name]
    report, recording = measure_activity(model, tokens(), 60)
    assert list(recording) == list(model.records)
    events = sum(int((counts != 0).sum()) for counts in recording.values())
    rows = [row for row in report["layers"] if row["firing_rate"] is not None]
    assert events == round(sum(row["firing_rate"] * row["neuron_updates"] for row in rows))
    assert all(row["graded_steps"] is None for row in report["units"].values())


def test_torch_and_runtime_count_the_same_spikes(tmp_path):
    torch = pytest.importorskip("torch")
    from spiketrain.lm.export import export_model
    from spiketrain.lm.families.spikingbrain import Config, Model
    from spiketrain.lm.scoring import TorchModel

    torch.manual_seed(1)
    model = Model(Config(
        vocab_size=257, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, intermediate_size=48, sliding_window=8,
        attn_layers=[1], spikes=True, dead_zone=1.6,
    ))  # fmt: skip
    export_model(model, tmp_path / "p")
    ours = record(runtime.load_model(tmp_path / "p"), tokens(25))
    theirs = record(TorchModel(model), tokens(25))
    for one, other in zip(ours.values(), theirs.values(), strict=True):
        assert (np.abs(one[one != 0]) >= 2).all()
        assert (one != other).mean() < 0.002  # at a rounding


@pytest.mark.parametrize("position", ["residual", "projections"])
def test_torch_gives_the_spikes_of_every_place(position):
    pytest.importorskip("torch")
    from spiketrain.lm.families.spikegpt import Config, Model
    from spiketrain.lm.scoring import TorchModel

    config = Config(
        vocab_size=257, hidden_size=16, num_hidden_layers=2, intermediate_size=32,
        neuron_position=position, binary_embedding=position == "residual",
    )  # fmt: skip
    model = TorchModel(Model(config))
    report, recording = measure_activity(model, tokens(30), 30)
    assert len(recording) == len(model.torch.event_sizes)
    for row, (place, counts) in zip(report["layers"], recording.items(), strict=True):
        assert counts.shape[0] == 30
        assert row["firing_rate"] == pytest.approx(float((counts != 0).mean()))
        assert report["units"][place]["firing_rate"] == pytest.approx(row["firing_rate"])
    assert "energy_per_token" not in report


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=30))
def test_expansions_are_trains_that_add_up(values):
    counts = np.array(values, np.int32)[None]
    binary, ternary, bitwise = expand(counts)
    assert binary.spikes_per_unit * len(values) == pytest.approx(sum(map(abs, values)))
    assert ternary.steps == binary.steps == max(map(abs, values))
    ones = sum(bin(abs(v)).count("1") for v in values)
    assert bitwise.spikes_per_unit * len(values) == pytest.approx(ones)
    assert bitwise.steps == len(f"{max(map(abs, values)):b}") * (max(map(abs, values)) > 0)
    if bitwise.steps:
        assert bitwise.firing_rate == pytest.approx(ones / len(values) / bitwise.steps)
    assert bitwise.bit_budget == bitwise.steps + any(v < 0 for v in values)


def test_energy_is_the_published_table_times_the_counts():
    assert operation("float32").mac_pj == pytest.approx(4.6)
    assert operation("float32").add_pj == 0.9
    assert operation("bfloat16") == operation("float32")
    assert operation("int8", 16).mac_pj == pytest.approx(0.5)
    assert operation("int4", 12).mac_pj == operation("int8", 16).mac_pj
    found = energy(operation("float32"), macs=10, acs=100, weight_bytes=8, state_bytes=16)
    assert found.compute_pj == pytest.approx(10 * 4.6 + 100 * 0.9)
    assert found.with_memory_low_pj == pytest.approx(136 + 1300 + 200)
    assert found.with_memory_high_pj == pytest.approx(136 + 2600 + 200)


def test_joules_are_read_where_there_are_counters(tmp_path):
    assert rapl.Rapl(tmp_path).stop() is None
    assert "intel-rapl" in rapl.Rapl(tmp_path).reason
    for name, value in (("intel-rapl:0", 10), ("intel-rapl:1", 900), ("intel-rapl:0:0", 5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{value}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("1000\n")
    counters = rapl.Rapl(tmp_path)
    counters.start()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("510\n")
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("100\n")
    assert counters.stop() == pytest.approx((500 + 200) / 1e6)


def test_a_text_becomes_tokens_with_ends(models, tmp_path):
    (tmp_path / "t").write_text("ab\n<|endoftext|>\nc")
    model = models["egru"]
    found = tokens_of(model, model.tokenizer, open_source(str(tmp_path / "t")), 100)
    assert found.tolist() == [256, *b"ab", 256, *b"c"]
    (tmp_path / "t").write_text("\n<|endoftext|>\n")
    bare = type("Bare", (), {"eos_token_ids": (), "vocab_size": 257})
    with pytest.raises(DataError, match="must have tokens to read"):
        tokens_of(bare, model.tokenizer, open_source(str(tmp_path / "t")), 100)


def test_a_tokenizer_that_cannot_encode_is_named(models, tmp_path):
    (tmp_path / "t").write_text("ab\n<|endoftext|>\n\n<|endoftext|>\nc")
    model, source = models["egru"], str(tmp_path / "t")
    assert tokens_of(model, model.tokenizer, open_source(source), 9).tolist() == [
        256, *b"ab", 256, *b"c"
    ]  # fmt: skip

    class Broken:
        vocab_size = 257

        def encode(self, text):
            return [97] if text == "ab" else [][text]

    with pytest.raises(DataError, match="t: document 1: tokenizer must encode it, got list ind"):
        tokens_of(model, Broken(), open_source(source), 9)
    larger = WordTokenizer(["<eos>", *map(str, range(300))])
    with pytest.raises(DataError, match="at most the model's 257 tokens, has 301"):
        tokens_of(model, larger, open_source(source), 9)


def test_pictures_take_places_of_one_kind_together():
    pytest.importorskip("matplotlib")
    from spiketrain.evaluation.pictures import kind_of

    kinds = {"layers.0": "layers", "blocks.11.lif2": "lif2", "layers.3.mlp.down": "mlp.down",
             "head": "head", "layers.2.mlp.shared.0.down": "mlp.shared.0.down"}  # fmt: skip
    assert {place: kind_of(place) for place in kinds} == kinds


def test_perplexity_by_position_is_that_of_pieces(models):
    from spiketrain.evaluation.positions import perplexity_by_position

    model = models["egru"]
    ids = tokens(101)
    ends, found = perplexity_by_position(model, ids, 20)
    assert ends.tolist() == [8, 16, 20]
    nats = np.empty((5, 20))
    for piece in range(5):
        state = model.new_state()
        for at in range(20):
            logits = model.step([state], [ids[20 * piece + at]])[0].astype(np.float64)
            target = ids[20 * piece + at + 1]
            nats[piece, at] = np.log(np.exp(logits - logits.max()).sum()) + logits.max()
            nats[piece, at] -= logits[target]
    assert found[1] == pytest.approx(np.exp(nats[:, 8:16].mean()))
    with pytest.raises(ValueError, match="tokens must be more than 20"):
        perplexity_by_position(model, ids[:20], 20)
