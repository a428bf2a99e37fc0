"""One door for models: every command says the same of a folder, and samples it in the same way."""

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler
from helpers.latent_networks import edit_json
from helpers.networks import tiny_unet

from diffusers_progdistill import ProgressiveDistillationPipeline
from diffusers_progdistill.commands.main import main
from diffusers_progdistill.denoisers.heads import change_output
from diffusers_progdistill.families import open_model
from diffusers_progdistill.pipelines.source import ModelSource


def small(**options):
    return tiny_unet(channels=options.pop("channels", 3), **options)


@pytest.fixture
def stock(tmp_path):
    """A stock teacher of 8x8 pixels in colour, in a folder that may be changed."""
    DDPMPipeline(small(), DDPMScheduler()).save_pretrained(tmp_path / "stock")
    return tmp_path / "stock"


NETWORKS = {
    "six in, three out": (lambda: small(channels=6, out_channels=3), "out_channels 3"),
    "three in, four out": (lambda: small(out_channels=4), "out_channels 4"),
    "fourier": (lambda: small(time_embedding_type="fourier"), "fourier"),
    "identity": (lambda: small(class_embed_type="identity"), "identity"),
}


def argv_of(command, folder, out):
    images = ["--dataset_name=digits"]
    train = [f"--pretrained_teacher_model={folder}", *images, "--report_to=none", f"--output_dir={out}"]
    return {
        "sample": ["sample", str(folder), "--num_inference_steps=2", f"--output={out}.png"],
        "distill": ["distill", *train, "--start_steps=4", "--end_steps=2"],
        "convert": ["convert", *train],
        "evaluate": ["evaluate", str(folder), *images, f"--output_dir={out}"],
    }[command]


@pytest.mark.parametrize("command", ["sample", "distill", "convert", "evaluate"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_every_command_refuses_the_same_networks(command, kind, tmp_path, capsys):
    make, said = NETWORKS[kind]
    DDPMPipeline(make(), DDPMScheduler()).save_pretrained(tmp_path / "model")
    assert main(argv_of(command, tmp_path / "model", tmp_path / "out")) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("progdistill")]
    assert len(lines) == 1 and said in lines[0]


@pytest.mark.parametrize("command", ["sample", "distill", "convert", "evaluate"])
def test_every_command_asks_before_code_runs(command, stock, tmp_path, capsys):
    edit_json(stock / "model_index.json", _class_name=["pipeline", "Custom"])
    (stock / "pipeline.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert main(argv_of(command, stock, tmp_path / "out")) == 2
    assert "--trust_remote_code" in capsys.readouterr().err and not (tmp_path / "ran").exists()


def test_sample_runs_trusted_code(stock, tmp_path):
    edit_json(stock / "model_index.json", _class_name=["pipeline", "Custom"])
    (stock / "pipeline.py").write_text("from diffusers import DDPMPipeline\nclass Custom(DDPMPipeline): pass\n")
    argv = argv_of("sample", stock, tmp_path / "out")
    assert main([*argv, "--num_images=1", "--trust_remote_code"]) == 0


def test_a_learned_variance_is_dropped_in_samples(tmp_path, caplog):
    both = small(out_channels=6)
    schedule = DDPMScheduler(variance_type="learned_range")
    DDPMPipeline(both, schedule).save_pretrained(tmp_path / "both")
    model = open_model(ModelSource(str(tmp_path / "both"))).pipeline
    mean = ProgressiveDistillationPipeline(change_output(both, [(k, 1.0) for k in range(3)]), model.scheduler)
    images = [p(2, None, 2, torch.Generator().manual_seed(0), output_type="pt").images for p in (model, mean)]
    assert torch.equal(*images) and "6 output channels" in caplog.text
    assert main([*argv_of("sample", tmp_path / "both", tmp_path / "out"), "--num_images=2"]) == 0


def test_sample_does_not_clip_a_foreign_model(stock, tmp_path, monkeypatch):
    seen = []
    from diffusers_progdistill.evaluation import pictures

    real = pictures.to_pictures
    monkeypatch.setattr(pictures, "to_pictures", lambda images: seen.append(images) or real(images))
    argv = [*argv_of("sample", stock, tmp_path / "out"), "--num_images=2"]
    assert main(argv) == 0
    edit_json(stock / "scheduler/scheduler_config.json", clip_sample=False)
    assert main(argv) == 0
    assert torch.equal(*seen)
    DDIMPipeline(small(), DDIMScheduler()).save_pretrained(tmp_path / "fp16", variant="fp16")
    assert main([*argv_of("sample", tmp_path / "fp16", tmp_path / "out"), "--num_images=1"]) == 2
    assert main([*argv_of("sample", tmp_path / "fp16", tmp_path / "out"), "--num_images=1", "--variant=fp16"]) == 0
