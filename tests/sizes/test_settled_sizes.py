"""The size of the images, settled once: what is trained is what is stored, sampled and said, or it is refused."""

import json

import numpy as np
import pytest
import torch
from helpers.networks import tiny_unet
from PIL import Image

from diffusers_progdistill import ProgressiveDistillationScheduler, save_pipeline
from diffusers_progdistill.commands.main import main
from diffusers_progdistill.data.sizes import check_levels, count_levels, parse_side, settle
from diffusers_progdistill.errors import InputError
from diffusers_progdistill.training.teacher import check_forward, default_unet_config, make_unet


FEW = ["--train_batch_size", "4", "--report_to", "none", "--mixed_precision", "no"]
ONE_HALVING = ["--start_steps", "2", "--end_steps", "1", "--updates_per_stage", "1", "--eval_images", "0"]


@pytest.fixture
def images(tmp_path):
    """Makes a folder of four gray pictures."""

    def make(width, height=None):
        folder = tmp_path / f"images-{width}x{height}"
        folder.mkdir()
        rng = np.random.default_rng(0)
        for k in range(4):
            pixels = rng.integers(0, 255, (height or width, width), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{k}.png")
        return str(folder)

    return make


@pytest.fixture
def teacher(tmp_path):
    """Makes a teacher with random weights and this `sample_size` in its config."""

    def make(sample_size):
        folder = tmp_path / "t"
        save_pipeline(tiny_unet(8, widths=(8, 8)), ProgressiveDistillationScheduler(), folder)
        path = folder / "unet" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "sample_size": sample_size}))
        return str(folder)

    return make


def size_in(folder):
    return json.loads((folder / "unet" / "config.json").read_text())["sample_size"]


def is_refused(capfd, argv, *words):
    """Whether a command ends with one line that holds the words, and exit status 2."""
    status, lines = main(argv), capfd.readouterr().err.strip().splitlines()
    return status == 2 and lines[-1].startswith("progdistill: error: ") and all(word in lines[-1] for word in words)


@pytest.mark.parametrize("form", [8, 8.0, [8, 8], (8, 8), [8]])
def test_a_size_is_read_in_whatever_form_it_is_given(form):
    assert parse_side(form, "it") == 8 == settle(None, form, "it") == settle(8, form, "it")


@pytest.mark.parametrize("form", [[8, 16], (16, 8), "8", 8.5, 0, -8, True, [8, 8, 8], [], [None, 8]])
def test_a_size_of_no_square_is_refused(form):
    with pytest.raises(InputError):
        parse_side(form, "it")


def test_a_size_is_asked_for_where_nobody_says_one():
    assert settle(None, None, "it") is None and settle(12, None, "it") == 12


@pytest.mark.parametrize("side", range(1, 70))
def test_levels_are_as_many_as_can_be_halved(side):
    levels = count_levels(side, 4)
    check_levels(side, {"block_out_channels": (8,) * levels}, "it")
    if levels < 4:
        with pytest.raises(InputError, match="--resolution must be a multiple"):
            check_levels(side, {"block_out_channels": (8,) * (levels + 1)}, "it")


@pytest.mark.parametrize("side", [7, 12, 20, 28, 30, 36, 50, 101])
def test_the_default_network_takes_images_of_every_size(side):
    state = torch.get_rng_state()
    check_forward(default_unet_config(side, 1), "v_prediction")
    # The weights that are drawn afterwards are what they would be without the check.
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("side, levels", [(16, 2), (32, 4), (64, 4), (128, 5), (256, 6)])
def test_the_default_network_of_usual_sizes_has_all_its_levels(side, levels):
    assert len(default_unet_config(side, 3)["block_out_channels"]) == levels


def test_a_default_network_with_fewer_levels_makes_images_of_the_size():
    unet = make_unet(default_unet_config(6, 1), "v_prediction")
    assert unet(torch.zeros(1, 1, 6, 6), 0).sample.shape == (1, 1, 6, 6)


@pytest.mark.parametrize(
    "resolution, sample_size", [("16", 8), ("4", 8), ("16", [8, 8])], ids=["larger", "smaller", "pair"]
)
def test_a_resolution_other_than_the_teachers_is_refused(tmp_path, capfd, images, teacher, resolution, sample_size):
    options = ["--train_data_dir", images(16), "--resolution", resolution, "--output_dir", str(tmp_path / "out")]
    argv = ["distill", "--pretrained_teacher_model", teacher(sample_size), *options, *FEW, *ONE_HALVING]
    assert is_refused(capfd, argv, "--resolution 8", "--pretrained_teacher_model", "8x8")
    assert not (tmp_path / "out").exists()


def test_a_teacher_of_images_that_are_not_square_is_refused(tmp_path, capfd, images, teacher):
    options = ["--train_data_dir", images(16), "--output_dir", str(tmp_path / "out")]
    argv = ["distill", "--pretrained_teacher_model", teacher([8, 16]), *options, *FEW, *ONE_HALVING]
    assert is_refused(capfd, argv, "8x16", "square")


@pytest.mark.parametrize(
    "sample_size, resolution, side", [([8, 8], None, 8), (None, "12", 12), (None, None, 16)], ids=str
)
def test_students_sample_what_they_were_trained_on(tmp_path, images, teacher, sample_size, resolution, side):
    name, out = teacher(sample_size), tmp_path / "out"
    before = (tmp_path / "t" / "unet" / "config.json").read_text()
    options = ["--train_data_dir", images(16), "--output_dir", str(out)]
    options += [] if resolution is None else ["--resolution", resolution]
    assert main(["distill", "--pretrained_teacher_model", name, *options, *FEW, *ONE_HALVING]) == 0
    assert size_in(out / "steps-1") == side
    assert f"{side}x{side}" in (out / "README.md").read_text()
    assert json.loads((out / "chain.json").read_text())["about"]["model"]["resolution"] == side
    assert (tmp_path / "t" / "unet" / "config.json").read_text() == before


@pytest.mark.parametrize("side", [12, 9])
def test_a_teacher_of_any_size_is_trained_without_options(tmp_path, images, side):
    out = tmp_path / "out"
    options = ["--train_data_dir", images(side), "--output_dir", str(out), "--max_train_steps", "1"]
    assert main(["train-teacher", *options, *FEW, "--lr_warmup_steps", "0"]) == 0
    assert size_in(out) == side


@pytest.mark.parametrize("options", [[], ["--resolution", "28"]])
def test_a_given_network_that_cannot_take_the_size_is_refused(tmp_path, capfd, images, options):
    path = tmp_path / "unet.json"
    given = {"block_out_channels": [8, 8, 8, 8], "norm_num_groups": 4, "in_channels": 1}
    given["down_block_types"], given["up_block_types"] = ["DownBlock2D"] * 4, ["UpBlock2D"] * 4
    path.write_text(json.dumps(given))
    argv = ["train-teacher", "--train_data_dir", images(28), "--model_config_name_or_path", str(path), *options]
    argv += [*FEW, "--output_dir", str(tmp_path / "out")]
    assert is_refused(capfd, argv, "28x28", str(path), "--resolution", "24 or 32")
    assert not (tmp_path / "out").exists()


def test_an_evaluation_at_another_size_is_refused(tmp_path, capfd, images, teacher):
    options = ["--train_data_dir", images(16), "--resolution", "16", "--output_dir", str(tmp_path / "out")]
    assert is_refused(capfd, ["evaluate", teacher(8), *options], "--resolution 8", "8x8")
    assert is_refused(capfd, ["evaluate", teacher(None), *options[:2], *options[4:]], "give --resolution")
