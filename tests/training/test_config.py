"""Recipes are checked whole, and errors say where."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pydantic")

from spiketrain.training.config import ConfigError, find_data, load_config  # noqa: E402
from spiketrain.training.schedules import event_price, learning_rate  # noqa: E402

RECIPES = Path(__file__).parents[2] / "training" / "recipes"
GOOD = """
name = "a"
[model]
family = "egru"
[data]
train = "t"
valid = "v"
[run]
tokens = 1000
"""


def write(tmp_path, text):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "speed = 1\n", "run.speed"),
        (GOOD.replace("1000", "-1"), "run.tokens"),
        (GOOD.replace('name = "a"', 'name = "../a"'), "name"),
        (GOOD + "= 3", "not valid TOML"),
        (GOOD.replace('train = "t"\n', ""), "data.train"),
    ],
)
def test_bad_recipes_name_the_field(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, text))


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_of_ours_can_be_run(recipe):
    pytest.importorskip("transformers")
    from spiketrain.training.build import build_model

    config = load_config(recipe)
    assert config.name == recipe.stem
    with torch.device("meta"):
        model = build_model(config, 300)
    assert sum(weights.numel() for weights in model.parameters()) > 100_000


def test_overrides_replace_fields_and_are_checked(tmp_path):
    path = write(tmp_path, GOOD)
    config = load_config(path, ["run.tokens=5", "data.train=other.txt", "optimizer.clip=0.5"])
    assert (config.run.tokens, config.data.train, config.optimizer.clip) == (5, "other.txt", 0.5)
    with pytest.raises(ConfigError, match=r"section\.field=value"):
        load_config(path, ["run.tokens"])


def test_missing_data_says_where_it_was_sought(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKETRAIN_DATA", str(tmp_path / "data"))
    with pytest.raises(ConfigError, match="SPIKETRAIN_DATA"):
        find_data("nothing.txt", tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "some.txt").write_text("x")
    assert find_data("some.txt", tmp_path) == tmp_path / "data" / "some.txt"


def test_the_learning_rate_warms_up_then_falls_to_its_end(tmp_path):
    optimizer = load_config(write(tmp_path, GOOD), ["optimizer.warmup_tokens=100"]).optimizer
    rates = [learning_rate(optimizer, done, 1000) for done in range(0, 1001, 10)]
    peak = rates.index(max(rates))
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert max(rates) == pytest.approx(optimizer.learning_rate)
    assert rates[-1] == pytest.approx(optimizer.learning_rate * optimizer.final_fraction)


def test_events_cost_nothing_below_the_target_and_all_above_its_band(tmp_path):
    fields = ["activity.penalty=2.0", "activity.target_rate=0.2", "activity.ramp=0.5"]
    activity = load_config(write(tmp_path, GOOD), fields).activity

    def price(rate, done):
        found = event_price(activity, torch.full((4,), rate), done, 1000)
        assert found.shape == (4,)
        assert (found == found[0]).all()
        return found[0].item()

    assert price(0.2, 1000) == pytest.approx(0.0, abs=1e-5)
    assert price(0.21, 1000) == pytest.approx(1.0, abs=1e-5)
    assert price(0.5, 1000) == 2.0
    assert price(0.5, 250) == 1.0


def test_units_near_silence_are_paid_for_events(tmp_path):
    fields = ["activity.floor_rate=0.1", "activity.floor_reward=2.0"]
    activity = load_config(write(tmp_path, GOOD), fields).activity
    price = event_price(activity, torch.tensor([0.0, 0.05, 0.1, 0.9]), 0, 1000)
    assert price.tolist() == pytest.approx([-2.0, -1.0, 0.0, 0.0])
