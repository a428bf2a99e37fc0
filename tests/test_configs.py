"""The benchmark configs of examples/: each plans its teacher and its chain on stand-in images of the same shape."""

import json
from pathlib import Path

import pytest
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from PIL import Image

from diffusers_progdistill import ProgressiveDistillationPipeline, ProgressiveDistillationScheduler
from diffusers_progdistill.commands.main import main


ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "examples" / "configs"
BENCHMARKS = {
    "cifar10": (32, 8192, 58_887_683),
    "imagenet64": (64, 1024, 294_501_699),
    "lsun_bedroom128": (128, 1024, 125_674_755),
}


def stand_in(folder, size, count, classes=0):
    """Plain coloured images, in one subfolder a class or as they are."""
    for k in range(count):
        place = folder / f"class-{k % classes}" if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (size, size), (k % 256, k // 256, 99)).save(place / f"{k}.png")
    return str(folder)


def unet_of(name):
    return json.loads((CONFIGS / "unet" / f"{name}.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_config_plans_teacher_and_chain(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    size, start, parameters = BENCHMARKS[name]
    conditional = name == "imagenet64"
    data = stand_in(tmp_path / "images", size, 128 if size == 32 else 2048, classes=10 * conditional)
    config = ["--config", str(CONFIGS / f"{name}.yaml"), "--train_data_dir", data, "--image_column", "image"]
    config += ["--report_to", "none", "--dry_run"]
    assert main(["train-teacher", *config]) == 0
    said = capsys.readouterr().out
    assert "GB for weights" in said and "forward passes" in said
    heads = {} if size == 32 else {"out_channels": 6}
    classes = {"num_class_embeds": 10} if conditional else {}
    kind = "sample_epsilon" if heads else "sample"
    net = "lsun128" if size == 128 else name
    assert sum(p.numel() for p in UNet2DModel(**unet_of(net)).parameters()) == parameters
    unet = UNet2DModel(**{**unet_of(net), **heads, **classes})
    assert f"{sum(p.numel() for p in unet.parameters()):,} parameters" in said
    teacher = tmp_path / "teacher"
    ProgressiveDistillationPipeline(unet, ProgressiveDistillationScheduler(prediction_type=kind)).save_pretrained(
        teacher
    )
    del unet
    assert main(["distill", *config, "--pretrained_teacher_model", str(teacher)]) == 0
    said = capsys.readouterr().out
    assert f"{start:>5} -> {start // 2:<5} steps    50,000 updates" in said
    assert "2 -> 1     steps   100,000 updates" in said and "no conversion stage needed" in said
    assert not Path(f"{name}-students").exists()


def test_the_two_lsun_configs_differ_in_names_only():
    bedroom, church = ((CONFIGS / f"lsun_{k}128.yaml").read_text() for k in ("bedroom", "church"))
    assert bedroom.replace("bedroom", "church") == church


@pytest.mark.slow
def test_ddpm_cifar10_config_plans_to_convert(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    # The architecture of google/ddpm-cifar10-32, with a sixteenth of its width.
    unet = UNet2DModel(
        sample_size=32,
        block_out_channels=(8, 16, 16, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
        norm_num_groups=8,
        attention_head_dim=None,
    )
    DDPMPipeline(unet, DDPMScheduler(clip_sample=True, variance_type="fixed_large")).save_pretrained(tmp_path / "t")
    data = stand_in(tmp_path / "images", 32, 128)
    options = ["--train_data_dir", data, "--image_column", "image", "--report_to", "none", "--dry_run"]
    config = ["--config", str(CONFIGS / "ddpm_cifar10.yaml"), "--pretrained_teacher_model", str(tmp_path / "t")]
    assert main(["distill", *config, *options]) == 0
    said = capsys.readouterr().out
    assert "it is converted first: its noise schedule is not the canonical cosine one" in said
    assert "teacher" in said and "200,000 forward passes" in said


def test_a_section_of_a_config_is_for_its_command_and_typed_data_replace_the_files(tmp_path, capsys):
    file = tmp_path / "c.yaml"
    file.write_text(
        "dataset_name: digits\ntrain_batch_size: 16\ntrain-teacher:\n  max_train_steps: 1\n  report_to: none\n"
        "distill:\n  start_steps: 3\n  pretrained_teacher_model: x/y\n"
    )
    assert main(["train-teacher", "--config", str(file), "--output_dir", str(tmp_path / "teacher")]) == 0
    capsys.readouterr()
    assert main(["distill", "--config", str(file)]) == 2
    assert "--start_steps 3" in capsys.readouterr().err
    assert (
        main(["distill", "--config", str(file), "--start_steps", "8", "--train_data_dir", str(tmp_path / "no")]) == 2
    )
    assert "exactly one" not in capsys.readouterr().err
    file.write_text("distill: 3\n")
    assert main(["distill", "--config", str(file)]) == 2
    assert "option: value" in capsys.readouterr().err
