"""Recipes: what stands in the file is what is meant, or is refused with its line."""

import re
from pathlib import Path

import pytest

from robaudit.errors import UsageError
from robaudit.training.recipe import Recipe, presets, read_recipe


@pytest.fixture
def refused(tmp_path):
    def check(text, match):
        path = tmp_path / "recipe.toml"
        path.write_text(text)
        with pytest.raises(UsageError, match=match):
            read_recipe(str(path))

    return check


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_a_recipe_and_says_what_it_is(name):
    assert read_recipe(name).about


def test_a_paper_table_is_a_folder_of_recipes():
    assert read_recipe("papers/rat-table-1/second-0.05").taylor.eta == 0.05
    assert read_recipe("papers/rat-table-3/second").threat.norm == "l2"
    assert read_recipe("papers/wci-table-1/wci").validation == 0.02
    flat = read_recipe("papers/flatness-fig-7/at")
    assert (flat.epochs, flat.learning_rate, flat.attack.steps) == (150, 0.05, 7)
    assert read_recipe("papers/trh-table-1/at-trh").trh.weight == 1e-5
    with pytest.raises(UsageError, match=r"no recipe 'papers/wci-table-1'\n") as caught:
        read_recipe("papers/wci-table-1")
    assert "papers/wci-table-1/cosine" in caught.value.advice
    assert "rat" not in caught.value.advice


def test_the_papers_settings():
    at = read_recipe("at")
    assert (at.epochs, at.learning_rate, at.weight_decay) == (200, 0.1, 5e-4)
    assert at.attack.step_size == 2 / 255
    assert at.schedule.milestones == (100, 150)
    assert read_recipe("at-wci").wci.threshold == 100
    assert read_recipe("trades-awp").awp.gamma == 0.005
    assert read_recipe("at-swa").swa.decay == 0.995
    assert (read_recipe("rat").taylor.eta, read_recipe("rat-second").taylor.eta) == (0.3, 0.2)
    trh = read_recipe("at-trh")
    assert (trh.trh.weight, trh.trh.schedule, trh.weight_decay) == (5e-4, "multistep", 2e-3)
    assert read_recipe("moons-full").trh.where == "full"


def test_a_misspelt_key_is_named_with_its_line_and_the_nearest(refused):
    refused("epochs = 1\n[awp]\ngama = 0.1\n", r"recipe.toml:3: unknown key 'gama'.*'gamma'")
    refused("epochs = 1\nobjectiv = 'at'\n", r":2: unknown key 'objectiv'.*'objective'")


def test_a_misspelt_preset_is_guessed():
    with pytest.raises(UsageError, match=r"no recipe 'digits-att'; did you mean 'digits-at'"):
        read_recipe("digits-att")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("objective = 'at'\n", "epochs"),
        ("epochs = 0\n", r":1: epochs"),
        ("epochs = 2\nobjective = 'art'\n", r":2: objective"),
        (
            "objective = 'mart'\nepochs = 2\n[taylor]\nkind = 'last-layer'\n",
            r":4: last-layer Taylor terms are there for trades",
        ),
        ("epochs = 2\npenalty = 6.0\n", r":2: at has no penalty"),
        ("epochs = 2\n[schedule]\nmilestones = [1]\n", r":3: a constant schedule"),
        ("epochs = 2\n[schedule]\nkind = 'cosine'\nwarmup = 2\n", r":4: warmup takes all"),
        ("epochs = 2\n[schedule]\nkind = 'cyclic'\nwarmup = 1\n", r":4: a cyclic schedule"),
        ("epochs = 2\n[schedule]\nkind = 'cosine'\n[wci]\n", r":2: \[wci\] sets"),
        ("epochs = 2\nobjective = 'mart'\n[trh]\nwhere = 'full'\n", r":4: full-network TrH"),
        ("epochs = 2\nobjective = 'standard'\n[taylor]\n", r":3: the Taylor terms"),
        ("epochs = 2\n[threat]\neps = '8/x'\n", r":3: threat.eps: eps is not a number"),
        ("epochs = 2\n[threat]\neps = 0\n", r":3: threat.eps"),
        ("epochs = 2\nlabel_smoothing = 1.0\n", r":2: label_smoothing"),
        ("epochs = 2\nlabel_noise = -0.1\n", r":2: label_noise"),
        ("epochs = 2\nweight_clip = 0\n", r":2: weight_clip"),
        ("epochs = 2\n[augment]\ncutout = 0\n", r":3: augment.cutout"),
        ("epochs = 2\n[augment]\nmixup = 0.0\n", r":3: augment.mixup"),
        ("epochs = 2\nobjective = 'mart'\n[augment]\nmixup = 1.0\n", r":4: MART's loss takes"),
        ("epochs = 2\nobjective = 'mart'\nlabel_smoothing = 0.1\n", r":3: MART's loss takes"),
        ("epochs = 2\noptimizer = 'adam'\nmomentum = 0.9\n", r":3: adam has moments"),
        ("epochs = 2\noptimizer = 'adm'\n", r":2: optimizer"),
        (
            "objective = 'trades'\nepochs = 2\nlabel_smoothing = 0.1\n"
            "[taylor]\nkind = 'last-layer'\n",
            r":5: last-layer Taylor terms take the label itself",
        ),
        ("epochs = 2\n[attack]\nearly_stop = -1\n", r":3: attack.early_stop"),
        ("epochs = 2\nobjective = 'standard'\n[attack]\nearly_stop = 1\n", r":4: standard train"),
        ("epochs = 2\nvalidation = 1.0\n", r":2: validation"),
        ("epochs = 2\n[schedule]\nkind = 'plateau'\n", r":3: a plateau is one of the robust loss"),
        (
            "epochs = 2\nvalidation = 0.1\n[schedule]\nkind = 'plateau'\nwarmup = 1\n",
            r":5: a plateau schedule has no warmup",
        ),
        ("epochs = 2\n[schedule]\nkind = 'piecewise-zoom'\n", r":3: .* there are none"),
        ("epochs = 2\n[schedule]\nzoom = 5\n", r":3: a constant schedule has no zoom"),
        (
            "epochs = 2\n[schedule]\nkind = 'cosine'\npatience = 5\n",
            r":4: a cosine schedule has no patience",
        ),
        ("epochs = 2\nextra_share = 0.5\n", r":2: there is no extra data"),
        ("epochs = 2\nextra_data = 'a.npz'\nextra_share = 1.0\n", r":3: extra_share"),
        (
            "epochs = 2\nbatch_size = 4\nextra_data = 'a.npz'\nextra_share = 0.1\n",
            r":4: a batch of 4 with 0.1 of extra data has no images of both kinds",
        ),
        ("epochs = 2\n[entropy_sgd]\n", r":2: the optimizer is sgd"),
        ("epochs = 2\noptimizer = 'entropy-sgd'\n[swa]\n", r":3: entropy-sgd averages"),
        (
            "epochs = 2\noptimizer = 'entropy-sgd'\n[entropy_sgd]\nlangevin = 0\n",
            r":4: entropy_sgd.langevin",
        ),
        ("epochs = true\n", r":1: epochs"),
        ("epochs =\n", "is not TOML"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(text, match, refused):
    refused(text, match)


def test_radii_are_read_as_fractions():
    recipe = Recipe.model_validate({"epochs": 1, "threat": {"eps": "8/255"}})
    assert recipe.threat.eps == 8 / 255


def test_the_page_names_every_preset_and_its_recipe_is_one(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "train.md").read_text("utf-8")
    pages = {name.rpartition("/")[0] or name for name in presets()}  # of a paper: its table
    assert [name for name in pages if f"`{name}`" not in page] == []
    path = tmp_path / "recipe.toml"
    path.write_text(re.search(r'```toml title="recipe.toml"\n(.*?)```', page, re.S)[1])
    recipe = read_recipe(str(path))
    unset = [name for name in Recipe.model_fields if name not in recipe.model_fields_set]
    # Every other table and key is shown.
    assert unset == ["about", "entropy_sgd", "rotations", "wci"]
