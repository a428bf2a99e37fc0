"""Every path that a person gives means what it would mean in a shell, wherever it was written."""

from dataclasses import fields
from pathlib import Path

import pytest
from diffusers import DDPMPipeline, DDPMScheduler

from diffusers_progdistill import paths
from diffusers_progdistill.commands import evaluate, parsing, push, sample
from diffusers_progdistill.commands.main import main
from diffusers_progdistill.errors import InputError
from diffusers_progdistill.paths import PATH_OPTIONS, settle_path
from diffusers_progdistill.training.config import ConversionConfig, DistillationConfig, TeacherConfig


CONFIGS = {
    "train-teacher": TeacherConfig,
    "convert": ConversionConfig,
    "distill": DistillationConfig,
    "evaluate": evaluate.EvaluationConfig,
    "sample": sample.SampleConfig,
    "push": push.PushConfig,
}
# Options of text that name no file: words, names on the Hub, names of columns, lists of numbers.
NO_PATHS = {
    *("dataset_config_name", "image_column", "class_column", "background_color", "train_split", "recipe", "objective"),
    *("hub_token", "hub_model_id", "hub_license", "report_to", "revision", "variant", "start_steps"),
    *("samplers", "steps", "seeds", "class_labels", "teacher_solver"),
}


def is_text(field) -> bool:
    return field.type is str or str in getattr(field.type, "__args__", ())


TEXT = [(command, f.name) for command, config in CONFIGS.items() for f in fields(config) if is_text(f)]


@pytest.fixture
def home(tmp_path, monkeypatch):
    (tmp_path / "home" / "x").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SCRATCH", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.mark.parametrize("command, name", TEXT)
def test_every_option_of_text_is_a_path_or_is_known_not_to_be(command, name, home):
    """A new option that is in neither list fails here."""
    assert (name in PATH_OPTIONS) != (name in NO_PATHS), f"is --{name} a path?"
    parsed = parsing.parse(CONFIGS[command], [f"--{name}=~/x"], command, "")
    assert getattr(parsed, name) == (f"{home}/x" if name not in NO_PATHS else "~/x")


@pytest.mark.parametrize("command, name", [pair for pair in TEXT if pair[1] not in NO_PATHS])
def test_a_path_in_a_file_and_in_python(command, name, home, tmp_path):
    (home / "run.yaml").write_text(f"{name}: ~/x\n")
    parsed = parsing.parse(CONFIGS[command], ["--config=~/run.yaml"], command, "")
    assert getattr(parsed, name) == f"{home}/x"
    for given in (Path("~/x"), home / "x", "$SCRATCH/x", "${SCRATCH}/x"):
        assert getattr(CONFIGS[command](**{name: given}), name) == f"{home}/x"


def test_values_set_later_are_settled_by_check(home):
    config = DistillationConfig(dataset_name="digits", report_to="none")
    config.pretrained_teacher_model, config.output_dir = Path("~/x"), Path("out")
    config.check()
    assert config.pretrained_teacher_model == f"{home}/x" and config.output_dir == "out"


@pytest.mark.parametrize(
    "given",
    ["google/ddpm-cifar10-32", "digits", "out", "./~/x", "a b/ü", "a$", "cash$in/x", "$1/x", "-x", "a,b", "x/../y"],
)
def test_what_is_left_as_it_is(given, home):
    assert settle_path(given, "--x") == given


def test_a_shell_leaves_names_that_are_no_users(home, tmp_path):
    (tmp_path / "~no-such-user").mkdir()
    (tmp_path / "$NOBODY_SET_THIS").mkdir()
    assert settle_path("~no-such-user", "--x") == "~no-such-user"
    assert settle_path("$NOBODY_SET_THIS", "--x") == "$NOBODY_SET_THIS"


@pytest.mark.parametrize(
    "given, cause",
    [
        ("~no-such-user/x", "no user no-such-user"),
        ("$NOBODY_SET_THIS/x", "no NOBODY_SET_THIS"),
        ("a/${NOBODY_SET_THIS}", "no NOBODY_SET_THIS"),
        ("", "empty"),
        (" ", "empty"),
        ("a\0b", "zero byte"),
        ("x" * 300, "File name too long"),
        (3, "must be a path"),
        (["a"], "must be a path"),
    ],
)
def test_refused_in_one_line(given, cause, home):
    with pytest.raises(InputError, match=cause) as error:
        settle_path(given, "--output_dir")
    assert str(error.value).startswith("--output_dir") and "\n" not in str(error.value)


def test_there_is_no_home(monkeypatch):
    monkeypatch.setattr(paths.os.path, "expanduser", lambda path: path)
    with pytest.raises(InputError, match="set HOME"):
        settle_path("~/x", "--x")


def test_commands_take_a_tilde_everywhere(home, unet, capsys):
    """Typed after an equals sign, where no shell expands it, and in a file."""
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(home / "t")
    (home / "run.yaml").write_text("pretrained_teacher_model: ~/t\noutput_dir: $SCRATCH/out\n")
    options = ["--config=~/run.yaml", "--dataset_name=digits", "--start_steps=4", "--end_steps=2", "--report_to=none"]
    options += ["--train_batch_size=8", "--conversion_updates=1", "--updates_per_stage=1"]
    assert main(["distill", *options]) == 0, capsys.readouterr().err
    assert main(["sample", "~/out/steps-2", "--output=~/grid.png", "--num_images=2"]) == 0
    assert main(["card", "~/out"]) == 0
    assert (home / "out" / "README.md").exists() and (home / "grid.png").exists()
    assert not list(home.parent.glob("~*")) and not list(home.parent.glob("$*"))
