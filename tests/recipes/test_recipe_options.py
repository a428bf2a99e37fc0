"""`--recipe`: what is not given is as the recipe says, what is given wins, and a run keeps what it began with."""

import dataclasses
import json
from pathlib import Path

import pytest

from diffusers_progdistill.commands.main import main
from diffusers_progdistill.commands.parsing import parse
from diffusers_progdistill.errors import InputError
from diffusers_progdistill.training.chain import distill
from diffusers_progdistill.training.config import DistillationConfig
from diffusers_progdistill.training.recipes import (
    LEFT_TO_RECIPE,
    PAPER,
    doubled,
    list_changes,
    paper_start,
    settle_recipe,
)


CONFIGS = Path(__file__).parents[2] / "examples" / "configs"
# What the four configs said option by option before there was the recipe.
PAPER_CHAIN = {
    "end_steps": 1, "stage_factor": 2, "teacher_solver": "ddim", "reuse_targets": 1, "loss_type": "l2",
    "clip_loss": False, "weighting": "truncated_snr", "updates_per_stage": 50_000, "use_ema": False,
    "lr_scheduler": "linear", "lr_warmup_steps": 0, "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8,
    "adam_weight_decay": 0.0, "max_grad_norm": 1.0, "random_flip": True,
}  # fmt: skip
PAPER_DATA = {
    "cifar10": {"start_steps": 8192, "learning_rate": 5e-5, "train_batch_size": 128},
    "imagenet64": {"start_steps": 1024, "learning_rate": 1e-4, "train_batch_size": 32},
    "lsun_bedroom128": {"start_steps": 1024, "learning_rate": 1e-4, "train_batch_size": 32},
    "lsun_church128": {"start_steps": 1024, "learning_rate": 1e-4, "train_batch_size": 32},
}


def of_words(*words):
    return parse(DistillationConfig, list(words), "progdistill distill", "")


def options(folder, teacher="x/y", **more):
    fixed = {"end_steps": 4, "updates_per_stage": 1, "train_batch_size": 4, "report_to": "none"}
    return {
        "pretrained_teacher_model": str(teacher), "output_dir": str(folder), "dataset_name": "digits", **fixed, **more
    }  # fmt: skip


def read_record(folder):
    return json.loads((folder / "chain.json").read_text())


@pytest.mark.parametrize("name", PAPER_DATA)
def test_the_papers_configs_are_what_they_were(name):
    config = settle_recipe(of_words("--config", str(CONFIGS / f"{name}.yaml")))
    config = dataclasses.replace(config, start_steps=config.start_steps or paper_start(config))
    expected = {**PAPER_CHAIN, **PAPER_DATA[name]}
    assert {k: getattr(config, k) for k in expected} == expected
    assert config.recipe == "paper" and list_changes(config) == []
    text = (CONFIGS / f"{name}.yaml").read_text().split("distill:\n")[1]
    assert "recipe: paper" in text and "loss_type" not in text and "clip_loss" not in text


def test_what_the_recipe_cannot_put_in_is_the_options_own_default():
    own = {k: getattr(DistillationConfig(), k) for k in PAPER if k not in LEFT_TO_RECIPE}
    # Where the weighting is left open, it follows from what the network predicts.
    assert {k: PAPER[k] for k in own} == {**own, "weighting": "truncated_snr"}
    assert all(getattr(DistillationConfig(), k) is None for k in LEFT_TO_RECIPE)


GIVEN = [
    ({}, ("midpoint", "l2", False)),
    ({"recipe": "default"}, ("midpoint", "l2", False)),
    ({"recipe": "paper"}, ("ddim", "l2", False)),
    # Given with the value of the other recipe, or with the value that it has anyway.
    ({"recipe": "paper", "teacher_solver": "midpoint"}, ("midpoint", "l2", False)),
    ({"recipe": "paper", "loss_type": "l2", "clip_loss": False}, ("ddim", "l2", False)),
    ({"recipe": "paper", "loss_type": "huber", "clip_loss": True}, ("ddim", "huber", True)),
    ({"teacher_solver": "ddim", "clip_loss": True}, ("ddim", "l2", True)),
]


@pytest.mark.parametrize("way", ["python", "words", "yaml"])
@pytest.mark.parametrize("given, expected", GIVEN)
def test_what_is_given_wins(given, expected, way, tmp_path):
    base = options(tmp_path / "run")
    if way == "python":
        config = DistillationConfig(**base, **given)
    elif way == "words":
        config = of_words(*(f"--{k}={v}" for k, v in {**base, **given}.items()))
    else:
        (tmp_path / "c.yaml").write_text("".join(f"{k}: {v}\n" for k, v in {**base, **given}.items()))
        config = of_words("--config", str(tmp_path / "c.yaml"))
    before = dataclasses.asdict(config)
    settled = settle_recipe(config)
    assert (settled.teacher_solver, settled.loss_type, settled.clip_loss) == expected
    assert settled.recipe == given.get("recipe", "default") and dataclasses.asdict(config) == before


def test_typed_options_win_over_a_file(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("recipe: paper\nloss_type: huber\nclip_loss: true\nteacher_solver: midpoint\n")
    base = [f"--{k}={v}" for k, v in options(tmp_path / "run").items()]
    settled = settle_recipe(of_words("--config", str(file), *base, "--teacher_solver", "ddim", "--no_clip_loss"))
    assert (settled.teacher_solver, settled.loss_type, settled.clip_loss) == ("ddim", "huber", False)
    assert settle_recipe(of_words(*base, "--clip_loss")).clip_loss is True


@pytest.mark.parametrize("end", [1, 3, 4, 7, 600, 1024])
@pytest.mark.parametrize("name, least", [("digits", 1024), ("uoft-cs/cifar10", 8192), ("cifar10", 8192)])
def test_the_papers_start_halves_down_to_the_end(name, least, end):
    steps = paper_start(DistillationConfig(dataset_name=name, end_steps=end))
    assert steps == doubled(end, least) and steps >= least and (steps < 2 * least or steps == 2 * end)
    DistillationConfig(
        pretrained_teacher_model="x/y", dataset_name=name, end_steps=end, start_steps=steps, report_to="none"
    ).check()


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"recipe": "papers"}, "--recipe must be one of default, paper, not papers"),
        ({"loss_type": "l1"}, "--loss_type must be one of l2, huber, not l1"),
        ({"huber_c": 0}, "--huber_c must be a positive number, not 0"),
        ({"clip_margin": -0.1}, "--clip_margin must be zero or a positive number, not -0.1"),
        ({"teacher_solver": "heun"}, "--teacher_solver must be one of midpoint, ddim, not heun"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(changes, said, tmp_path, capsys):
    with pytest.raises(InputError, match=said):
        DistillationConfig(**options(tmp_path / "run", **changes)).check()
    words = [f"--{k}={v}" for k, v in options(tmp_path / "run", **changes).items()]
    assert main(["distill", *words]) == 2
    error = capsys.readouterr().err
    # A command line quotes the words that are no choice.
    assert said in error.replace("'", "") and error.count("\n") == 1


def test_the_record_the_card_and_the_plan_name_it(teacher_folder, tmp_path, capsys):
    given = options(tmp_path / "run", teacher_folder, recipe="paper", start_steps=8, loss_type="huber")
    config = DistillationConfig(**given)
    distill(dataclasses.replace(config, dry_run=True))
    said = capsys.readouterr().out
    values = "start_steps 8, teacher_solver ddim, loss_type huber, clip_loss False"
    assert f"recipe: paper ({values}); given otherwise: start_steps, loss_type, updates_per_stage\n" in said
    assert "of the images' values are exactly 0 or 255: --clip_loss may help\n" in said
    distill(config)
    about = read_record(tmp_path / "run")["about"]
    assert about["recipe"] == "paper"
    assert about["recipe_changes"] == ["start_steps", "loss_type", "updates_per_stage"]
    assert "recipe" not in read_record(tmp_path / "run")["settings"]
    card = " ".join((tmp_path / "run" / "README.md").read_text().split())
    assert "those of the recipe paper, except start\\_steps, loss\\_type, updates\\_per\\_stage." in card
    assert config == DistillationConfig(**given)


@pytest.mark.parametrize(
    "began",
    [
        {"loss_type": "huber", "clip_loss": True, "teacher_solver": "midpoint"},
        {"loss_type": "l2", "clip_loss": False, "teacher_solver": "ddim"},
        {"loss_type": "l2", "clip_loss": True, "teacher_solver": "midpoint"},
    ],
)
def test_a_run_goes_on_as_it_began(began, teacher_folder, tmp_path, capsys):
    folder = tmp_path / "run"
    distill(DistillationConfig(**options(folder, teacher_folder, start_steps=8, **began)))
    again = options(folder, teacher_folder, start_steps=8)
    for changes in ({}, {"start_steps": "auto"}, {"start_steps": None}):
        capsys.readouterr()
        distill(DistillationConfig(**{**again, **changes}))
        assert "is finished already" in capsys.readouterr().out
    other = {"midpoint": "ddim", "ddim": "midpoint"}[began["teacher_solver"]]
    for changes in ({"teacher_solver": other}, {"clip_loss": not began["clip_loss"]}):
        with pytest.raises(InputError, match="holds a run with other settings"):
            distill(DistillationConfig(**{**again, **changes}))
    if began["teacher_solver"] == "midpoint":
        # A recipe that is named is not left for what the run began with.
        with pytest.raises(InputError, match="--teacher_solver midpoint -> ddim"):
            distill(DistillationConfig(**again, recipe="paper"))


def test_a_run_of_an_earlier_version_is_refused(teacher_folder, tmp_path, capsys):
    config = DistillationConfig(**options(tmp_path / "run", teacher_folder, start_steps=8))
    distill(config)
    record = read_record(tmp_path / "run")
    record.pop("format")
    (tmp_path / "run" / "chain.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="holds a run of an earlier version: give a new folder"):
        distill(config)
    for command in ("evaluate", "card", "push"):
        assert main([command, str(tmp_path / "run")]) == 2
        assert "holds a run of an earlier version" in capsys.readouterr().err
