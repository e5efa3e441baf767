"""Real tasks of lm-evaluation-harness on local data, against plain loops over `step`."""

import itertools
import json

import numpy as np
import pytest
import tiny
from tiny_spikegpt import tiny_spikegpt_package

from spiketrain import runtime
from spiketrain.runtime.errors import DataError
from spiketrain.runtime.scoring import token_nats

pytest.importorskip("lm_eval")

pytestmark = [
    pytest.mark.slow,  # importing lm_eval takes ten seconds
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CHOICES = [
    {"q": "An owl", "choices": [" flew", " sat still"], "gold": 0},
    {"q": "An owl and a fox", "choices": [" ran", " met in the wood"], "gold": 1},
    {"q": "The fox", "choices": [" slept", " sang"], "gold": 1},
]
TEXTS = [{"text": "An owl flew."}, {"text": "d\u00e9j\u00e0 vu, said the fox"}]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return tiny.tiny_egru_package(tmp_path_factory.mktemp("harness") / "package")


@pytest.fixture(scope="module")
def lm(package):
    from spiketrain.evaluation.harness import SpiketrainLM

    return SpiketrainLM(str(package), batch_size=2)


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """A folder with three tasks: choices, rolling perplexity, generation."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, rows in (("choices", CHOICES), ("texts", TEXTS)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    shared = {"dataset_path": "json", "test_split": "test", "metadata": {"version": 1}}
    made = {
        "owl_choices": {
            "data": "choices", "output_type": "multiple_choice", "doc_to_text": "{{q}}",
            "doc_to_choice": "{{choices}}", "doc_to_target": "gold", "target_delimiter": "",
            "metric_list": [{"metric": "acc"}],
        },
        "owl_texts": {
            "data": "texts", "output_type": "loglikelihood_rolling", "doc_to_text": "",
            "doc_to_target": "{{text}}",
            "metric_list": [{"metric": "bits_per_byte"}, {"metric": "byte_perplexity"}],
        },
        "owl_generation": {
            "data": "choices", "output_type": "generate_until", "doc_to_text": "{{q}}",
            "doc_to_target": "x", "metric_list": [{"metric": "exact_match"}],
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": 5, "do_sample": False},
        },
    }  # fmt: skip
    for name, fields in made.items():
        data = str(tmp_path / f"{fields.pop('data')}.jsonl")
        settings = {"task": name, **shared, **fields}
        settings["dataset_kwargs"] = {"data_files": {"test": data}}
        (tmp_path / f"{name}.yaml").write_text(json.dumps(settings))
    return tmp_path


def nats_of(model, ids):
    """Nats of ids[1:] and whether each is the likeliest, from the zero state."""
    state, nats, best = model.new_state(), [], []
    for token, target in itertools.pairwise(ids):
        logits = model.step([state], [token])
        nats.append(float(token_nats(logits, np.array([target]))[0]))
        best.append(int(logits[0].argmax()) == target)
    return nats, best


def requests(kind, arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, given, place) for place, given in enumerate(arguments)]


def test_loglikelihoods_agree_with_a_plain_loop(lm):
    model = lm.model
    pairs = [(row["q"], choice) for row in CHOICES for choice in row["choices"]]
    pairs += [("", "An owl"), ("An owl", " flew")]
    found = lm.loglikelihood(requests("loglikelihood", pairs), disable_tqdm=True)
    for (context, rest), (value, greedy) in zip(pairs, found, strict=True):
        before = [*context.encode()] or [256]
        nats, best = nats_of(model, [*before, *rest.encode()])
        assert value == pytest.approx(-sum(nats[len(before) - 1 :]), rel=1e-12)
        assert greedy == all(best[len(before) - 1 :])


def test_rolling_scores_a_text_after_the_end_of_text(lm):
    texts = [(row["text"],) for row in TEXTS]
    found = lm.loglikelihood_rolling(requests("loglikelihood_rolling", texts))
    for (text,), value in zip(texts, found, strict=True):
        nats, _ = nats_of(lm.model, [256, *text.encode()])
        assert value == pytest.approx(-sum(nats), rel=1e-12)


def test_generation_is_greedy_and_stops(lm):
    model = lm.model
    given = {"until": ["\n"], "max_gen_toks": 9}
    contexts = ["An owl", "The", "An owl and", ""]
    pairs = [(context, given) for context in contexts]
    found = lm.generate_until(requests("generate_until", pairs))
    for context, text in zip(contexts, found, strict=True):
        state, ids = model.new_state(), []
        for token in context.encode() or [256]:
            logits = model.step([state], [token])
        while len(ids) < 9 and int(logits.argmax()) != 256:
            ids.append(int(logits.argmax()))
            logits = model.step([state], ids[-1:])
        expected = model.tokenizer.decode(ids, continues=True).split("\n")[0]
        assert text == expected
    cut = found[0][2:3]
    if cut:
        given = {"until": [cut], "max_gen_toks": 9}
        (shorter,) = lm.generate_until(requests("generate_until", [("An owl", given)]))
        assert shorter == found[0].split(cut)[0]


def test_shared_beginnings_are_read_once(package):
    from spiketrain.evaluation.harness import SpiketrainLM

    lm = SpiketrainLM(str(package))
    shared = "A long story of an owl and of a fox. " * 5
    pairs = [(shared + str(number), " end") for number in range(6)]
    lm.model.reset_activity()
    lm.loglikelihood(requests("loglikelihood", pairs), disable_tqdm=True)
    assert lm.model.activity().tokens < len(shared) + 6 * 10


def test_a_dial_is_that_of_every_sequence(tmp_path):
    from spiketrain.evaluation.harness import SpiketrainLM

    path = tiny_spikegpt_package(tmp_path / "p", neuron_position="projections", max_dial=2.0)
    pairs = requests("loglikelihood", [("An owl", " met a fox")])
    found = {}
    for dial in ("1", "1.5"):  # as text, which is what model_args are
        lm = SpiketrainLM(str(path), dial=dial)
        state = lm.model.new_state(float(dial))
        ids = lm.model.tokenizer.encode("An owl met a fox")
        logits = lm.model.forward(state, ids[:-1])[5:]
        wanted = -token_nats(logits, np.array(ids[6:])).sum()
        ((found[dial], _),) = lm.loglikelihood(pairs, disable_tqdm=True)
        assert found[dial] == pytest.approx(wanted)
    assert found["1"] != found["1.5"]


def test_the_command_runs_tasks_on_local_data(package, tasks, monkeypatch, capsys):
    from spiketrain.cli import main

    arguments = ["spiketrain", "eval", "harness", str(package), "--include-path", str(tasks)]
    arguments += ["--tasks", "owl_choices,owl_texts,owl_generation", "--json"]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code
    found = json.loads(capsys.readouterr().out)
    model = runtime.load_model(package)
    right = 0
    for row in CHOICES:
        start = row["q"].encode()
        scores = []
        for choice in row["choices"]:
            nats, _ = nats_of(model, [*start, *choice.encode()])
            scores.append(-sum(nats[len(start) - 1 :]))
        right += int(np.argmax(scores)) == row["gold"]
    results = found["results"]
    assert results["owl_choices"]["acc,none"] == pytest.approx(right / 3)
    nats = sum(sum(nats_of(model, [256, *row["text"].encode()])[0]) for row in TEXTS)
    size = sum(len(row["text"].encode()) for row in TEXTS)
    bits = results["owl_texts"]["bits_per_byte,none"]
    assert bits == pytest.approx(nats / np.log(2) / size)
    assert "exact_match,none" in results["owl_generation"]
    assert found["fingerprint"] == model.fingerprint


def test_unknown_tasks_and_models_are_named(package, tmp_path, monkeypatch, capsys):
    from spiketrain.cli import main
    from spiketrain.evaluation.harness import SpiketrainLM

    arguments = ["spiketrain", "eval", "harness", str(package), "--tasks", "no_such_task"]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert "no_such_task" in capsys.readouterr().err
    bare = tiny.tiny_egru_package(tmp_path / "bare", with_tokenizer=False)
    with pytest.raises(DataError, match="must have a tokenizer"):
        SpiketrainLM(str(bare))
    with pytest.raises(DataError, match="model_args must be known, got"):
        SpiketrainLM(str(package), colour="blue")
