"""Files that try to run code or to lead out of their folder: refused with a reason, and no code has run."""

import json
import pickle
import shutil
import struct
import zlib

import pytest
import torch
from PIL import Image

from diffusers_progdistill.commands.main import main


class Hostile:
    """Pickled, it would write a file when it is loaded."""

    def __init__(self, canary):
        self.canary = str(canary)

    def __reduce__(self):
        return open, (self.canary, "w")


@pytest.fixture
def canary(tmp_path):
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "code was run"


@pytest.fixture
def teacher(teacher_folder, tmp_path):
    return shutil.copytree(teacher_folder, tmp_path / "teacher")


def refused(capsys, *argv):
    """The one line that a refusal says."""
    options = ["--output_dir=never", "--start_steps=4", "--end_steps=2", "--updates_per_stage=1", "--report_to=none"]
    assert main(["distill", *options, "--train_batch_size=4", *map(str, argv)]) == 2
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("progdistill: error:")]
    assert len(lines) == 1 and "Traceback" not in said
    return lines[0]


def refused_teacher(capsys, teacher, *more):
    return refused(capsys, f"--pretrained_teacher_model={teacher}", "--dataset_name=digits", *more)


def refused_images(capsys, teacher, folder):
    return refused(capsys, f"--pretrained_teacher_model={teacher}", f"--train_data_dir={folder}")


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickled_teacher(teacher, canary, capsys, how):
    (teacher / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with open(teacher / "unet" / "diffusion_pytorch_model.bin", "wb") as file:
        torch.save({"x": Hostile(canary)}, file) if how == "torch" else pickle.dump(Hostile(canary), file)
    assert "--pretrained_teacher_model" in refused_teacher(capsys, teacher)


def test_plain_tensors_in_a_bin_file_load(teacher, tmp_path):
    from safetensors.torch import load_file

    path = teacher / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    options = ["--start_steps=4", "--end_steps=2", "--updates_per_stage=1", "--report_to=none", "--train_batch_size=4"]
    options += [f"--pretrained_teacher_model={teacher}", "--dataset_name=digits", f"--output_dir={tmp_path / 'run'}"]
    assert main(["distill", *options]) == 0


def test_a_pipeline_with_code_of_its_own(teacher, tmp_path, capsys):
    """Off without `--trust_remote_code`. With it the code runs, and its network on its schedule is distilled."""
    index = json.loads((teacher / "model_index.json").read_text())
    index["_class_name"] = ["pipeline", "Custom"]
    (teacher / "model_index.json").write_text(json.dumps(index))
    code = (
        f"from diffusers import DDIMPipeline\nopen({str(tmp_path / 'ran')!r}, 'w')\nclass Custom(DDIMPipeline): pass\n"
    )
    (teacher / "pipeline.py").write_text(code)
    assert "--trust_remote_code" in refused_teacher(capsys, teacher)
    assert not (tmp_path / "ran").exists()
    options = ["--start_steps=4", "--end_steps=2", "--updates_per_stage=1", "--report_to=none", "--train_batch_size=4"]
    options += [f"--pretrained_teacher_model={teacher}", "--dataset_name=digits", f"--output_dir={tmp_path / 'run'}"]
    assert main(["distill", *options, "--trust_remote_code"]) == 0
    assert (tmp_path / "ran").exists() and (tmp_path / "run" / "steps-2" / "model_index.json").exists()


def test_a_component_with_code_of_its_own(teacher, canary, capsys):
    index = json.loads((teacher / "model_index.json").read_text())
    index["unet"] = ["custom_unet", "Custom"]
    (teacher / "model_index.json").write_text(json.dumps(index))
    (teacher / "unet" / "custom_unet.py").write_text(f"open({str(canary)!r}, 'w')\nclass Custom: pass\n")
    assert "--trust_remote_code" in refused_teacher(capsys, teacher)


def test_an_index_that_leads_out_of_the_folder(teacher, tmp_path, capsys):
    weights = teacher / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.move(weights, tmp_path / "outside.safetensors")
    from safetensors.torch import load_file

    names = {k: "../../outside.safetensors" for k in load_file(tmp_path / "outside.safetensors")}
    index = {"metadata": {"total_size": 1}, "weight_map": names}
    (teacher / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    assert "leads out of" in refused_teacher(capsys, teacher)


def test_a_link_out_of_the_teachers_folder(teacher, tmp_path, capsys):
    weights = teacher / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.move(weights, tmp_path / "outside.safetensors")
    weights.symlink_to(tmp_path / "outside.safetensors")
    assert "leads out of" in refused_teacher(capsys, teacher)


def test_a_repository_id_with_dots(capsys):
    assert "--pretrained_teacher_model" in refused_teacher(capsys, "me/../../etc")
    assert "--pretrained_teacher_model" in refused_teacher(capsys, "../x")


def test_a_data_set_with_a_script(teacher, tmp_path, canary, capsys):
    folder = tmp_path / "mydata"
    folder.mkdir()
    (folder / "mydata.py").write_text(f"open({str(canary)!r}, 'w')\n")
    line = refused(capsys, f"--pretrained_teacher_model={teacher}", f"--dataset_name={folder}")
    assert "--dataset_name" in line


def images_in(folder, count=8):
    folder.mkdir()
    for k in range(count):
        Image.new("L", (8, 8), k).save(folder / f"{k}.png")
    return folder


def test_an_image_name_that_leads_out_of_the_folder(teacher, tmp_path, capsys):
    folder = images_in(tmp_path / "images")
    Image.new("L", (8, 8)).save(tmp_path / "secret.png")
    (folder / "metadata.jsonl").write_text('{"file_name": "../secret.png"}\n')
    line = refused_images(capsys, teacher, folder)
    assert "leads out of" in line or "secret.png" in line, line


def test_a_link_out_of_the_images_folder(teacher, tmp_path, capsys):
    folder = images_in(tmp_path / "images")
    Image.new("L", (8, 8)).save(tmp_path / "secret.png")
    (folder / "x.png").symlink_to(tmp_path / "secret.png")
    assert "leads out of" in refused_images(capsys, teacher, folder)


def test_a_parquet_file_that_names_files_elsewhere(teacher, tmp_path, capsys):
    import datasets

    Image.new("L", (8, 8)).save(tmp_path / "secret.png")
    (tmp_path / "data").mkdir()
    rows = {"image": [{"bytes": None, "path": str(tmp_path / "secret.png")}] * 8}
    table = datasets.Dataset.from_dict(rows, features=datasets.Features({"image": datasets.Image(decode=False)}))
    table.to_parquet(str(tmp_path / "data" / "x.parquet"))
    assert "leads out of" in refused_images(capsys, teacher, tmp_path / "data" / "x.parquet")


def png(width, height):
    """A PNG of one colour: a few kilobytes that decompress to all these pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rows = zlib.compressobj()
    data = b"".join(rows.compress(b"\0" * (width + 1)) for _ in range(height)) + rows.flush()
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_a_decompression_bomb(teacher, tmp_path, capsys, caplog):
    folder = images_in(tmp_path / "images", 0)
    (folder / "bomb.png").write_bytes(png(9000, 9000))
    assert "no readable image" in refused_images(capsys, teacher, folder)
    for k in range(8):
        Image.new("L", (8, 8), k).save(folder / f"{k}.png")
    options = ["--start_steps=4", "--end_steps=2", "--updates_per_stage=1", "--report_to=none", "--train_batch_size=4"]
    options += [f"--pretrained_teacher_model={teacher}", f"--train_data_dir={folder}"]
    assert main(["distill", *options, f"--output_dir={tmp_path / 'run'}"]) == 0
    assert "bomb.png" in caplog.text and "81,000,000 pixels" in caplog.text
