import json

import numpy as np
import pytest
import tiny
import tiny_spikegpt
import tiny_spikingbrain
from command_in_process import call

from spiketrain.runtime.package import read_package

nir = pytest.importorskip("nir")

MAKERS = {
    "egru": (tiny.tiny_egru_package, "layers.0: gates: products of sigmoid, tanh"),
    "spikegpt": (tiny_spikegpt.tiny_spikegpt_package, "blocks.0.att: WKV: exponentials"),
    "spikingbrain": (tiny_spikingbrain.tiny_spikingbrain_package, "layers.0.attn: gated linear"),
}


def run(monkeypatch, *arguments):
    """Exit code of the command line."""
    return call(monkeypatch, "export", "nir", *arguments)


def simulate(graph, name, x, v=None):
    """Spikes (T, N) of the stretch that ends with node `name`: forward Euler, one step a token."""
    before = dict(reversed(edge) for edge in graph.edges)[name]
    if isinstance(graph.nodes[before], nir.Linear):
        x = x @ graph.nodes[before].weight.T
    unit, spikes = graph.nodes[name], np.zeros(x.shape, bool)
    v = np.zeros(x.shape[1:], np.float32) if v is None else v
    for t in range(len(x)):
        v = v + (unit.v_leak - v + unit.r * x[t]) / unit.tau
        spikes[t] = v > unit.v_threshold
        v = np.where(spikes[t], unit.v_reset, v)
    return spikes


@pytest.mark.parametrize("family", MAKERS)
def test_a_model_with_other_operations_is_refused_by_name(tmp_path, monkeypatch, capsys, family):
    maker, named = MAKERS[family]
    package = maker(tmp_path / "p", weights="float32")
    assert run(monkeypatch, package, tmp_path / "out.nir") == 1
    err = capsys.readouterr().err
    assert f"operations of this {family}" in err
    assert named in err
    assert not (tmp_path / "out.nir").exists()


@pytest.mark.parametrize("family", ["egru", "spikingbrain"])
def test_parts_need_lif_units(tmp_path, monkeypatch, capsys, family):
    package = MAKERS[family][0](tmp_path / "p")
    assert run(monkeypatch, package, tmp_path / "out.nir", "--parts") == 1
    assert "no LIF units to write in parts" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_every_family_says_what_it_computes_and_ends_with_its_head(tmp_path):
    import spiketrain.runtime.families

    for family in spiketrain.runtime.families.NAMES:
        spec = read_package(MAKERS[family][0](tmp_path / family)).spec
        *rest, last = spec.operations()
        assert rest
        assert last.place == spec.readout_names[-1]


def test_lif_units_spike_in_the_graph_as_in_the_runtime(tmp_path, monkeypatch, capsys):
    import spiketrain.runtime.kernels.vectors.mixers as mixers

    package = tiny_spikegpt.tiny_spikegpt_package(
        tmp_path / "p", weights="float32", lif_tau=3.0, pre_ffn=True
    )
    assert run(monkeypatch, package, tmp_path / "out.nir", "--parts", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parts"][0] == ["blocks.0.lif1 (LIF)"]
    assert found["parts"][2] == ["blocks.1.att.output (Linear)", "blocks.1.lif1 (LIF)"]
    assert {"place": "ln_out", "what": "LayerNorm over the channels"} in found["elsewhere"]
    graph, tensors = nir.read(tmp_path / "out.nir"), read_package(package).tensors
    assert graph.metadata["complete"] == "no"
    assert sum(isinstance(node, nir.LIF) for node in graph.nodes.values()) == 6
    rng = np.random.default_rng(0)
    for place in ("blocks.0.lif1", "blocks.2.lif2"):
        scale, threshold = (np.array(tensors[f"{place}.{key}"]) for key in ("scale", "threshold"))
        x = rng.normal(0, 3, (80, scale.size)).astype(np.float32)
        x[0] = 3.0 * threshold / scale  # at or next to the threshold, from rest
        membrane, count = np.zeros_like(scale), np.zeros((len(x), scale.size), np.int32)
        for t in range(len(x)):
            mixers.lif(x[t], scale, threshold, 3.0, membrane, count[t])
        spikes = simulate(graph, place.replace(".", "_"), x)
        assert 0.05 < spikes.mean() < 0.95
        assert np.array_equal(spikes, count != 0)


def test_a_unit_fires_at_its_threshold(tmp_path, monkeypatch):
    package = tiny_spikegpt.tiny_spikegpt_package(tmp_path / "p", weights="float32")
    assert run(monkeypatch, package, tmp_path / "out.nir", "--parts") == 0
    unit = nir.read(tmp_path / "out.nir").nodes["blocks_0_lif1"]
    threshold = np.array(read_package(package).tensors["blocks.0.lif1.threshold"])
    assert (threshold > unit.v_threshold).all()
    assert (np.nextafter(threshold, np.float32(0)) <= unit.v_threshold).all()


def test_a_stretch_of_matrix_and_units_gives_the_spikes_of_the_model(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    from spiketrain.lm.export import export_model
    from spiketrain.lm.families.spikegpt import Config, Model, mixes

    torch.manual_seed(2)
    model = Model(
        Config(vocab_size=50, hidden_size=24, num_hidden_layers=2, lif_threshold=0.1)
    ).eval()
    export_model(model, tmp_path / "p")
    assert run(monkeypatch, tmp_path / "p", tmp_path / "out.nir", "--parts") == 0
    graph, seen, product = nir.read(tmp_path / "out.nir"), {}, mixes.product
    monkeypatch.setattr(
        mixes, "product", lambda x, matrix: seen.update({matrix: x}) or product(x, matrix)
    )
    ids = torch.from_numpy(np.random.default_rng(1).integers(0, 50, (1, 60)))
    with torch.no_grad():
        _, _, events = model.features(ids)
    for block in range(2):
        x = seen[model.blocks[block].att.output][:, 0].numpy()
        spikes = simulate(graph, f"blocks_{block}_lif1", x)
        expected = events[2 * block][:, 0].numpy() != 0
        assert expected.any()
        assert np.array_equal(spikes, expected)


def test_matrices_of_bfloat16_are_written_as_floats(tmp_path, monkeypatch):
    package = tiny_spikegpt.tiny_spikegpt_package(tmp_path / "p", weights="bfloat16")
    assert run(monkeypatch, package, tmp_path / "out.nir", "--parts") == 0
    written = nir.read(tmp_path / "out.nir").nodes["blocks_0_att_output"].weight
    bits = read_package(package).tensors["blocks.0.att.output.weight"].T
    assert written.dtype == np.float32
    assert np.array_equal(written.view(np.uint32), bits.astype(np.uint32) << 16)


def test_an_existing_file_is_kept_unless_forced(tmp_path, monkeypatch, capsys):
    package = tiny_spikegpt.tiny_spikegpt_package(tmp_path / "p", weights="float32")
    (tmp_path / "out.nir").write_text("mine")
    assert run(monkeypatch, package, tmp_path / "out.nir", "--parts") == 1
    assert "must not exist" in capsys.readouterr().err
    assert (tmp_path / "out.nir").read_text() == "mine"
    assert run(monkeypatch, package, tmp_path / "out.nir", "--parts", "--force") == 0
    assert nir.read(tmp_path / "out.nir").nodes
    assert run(monkeypatch, package, tmp_path / "absent" / "out.nir", "--parts") == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_without_the_library_its_extra_is_named(tmp_path, monkeypatch, capsys):
    from spiketrain.commands import extras

    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)
    assert run(monkeypatch, "bundled", tmp_path / "out.nir") == 1
    assert "pip install 'spiketrain[nir]'" in capsys.readouterr().err
