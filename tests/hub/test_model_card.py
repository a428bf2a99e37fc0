"""The card: what it says, that it can be read back, that its code runs, and that nothing private gets into it."""

import getpass
import json
import re
import socket

import pytest
from huggingface_hub import ModelCard, metadata_load

from diffusers_progdistill.commands.main import main
from diffusers_progdistill.hub.model_card import make_card


def content(**changes):
    """What chain.json holds after three stages."""
    stage = {"updates": 10, "forward_passes": 50, "seconds": 36.0, "loss": 0.1}
    return {
        "settings": {
            "seed": 0,
            "weighting": "truncated_snr",
            "dataset_name": None,
            "train_data_dir": "/home/joe/cats",
        },
        "versions": {"torch": "2.13.0"},
        "stages": [{"name": f"steps-{n}", "num_inference_steps": n, **stage} for n in (8, 4, 2)],
        "finished": False,
        "about": {
            "teacher": {"source": "local"},
            "data": {"source": "local"},
            "model": {"parameters": 160_000, "resolution": 8, "channels": 1, "num_classes": None},
        },
        **changes,
    }


def row(model, steps, distance, **changes):
    """A row of evaluation.json."""
    others = {"kernel_distance": 1.0, "precision": 0.5, "recall": 0.5}
    return {
        "model": model,
        "sampler": "progdistill",
        "num_inference_steps": steps,
        "guidance_scale": 1.0,
        "num_images": 2000,
        "seed": 0,
        "feature_extractor": "classifier",
        "metric": "FD (seeded classifier)",
        "frechet_distance": distance,
        "real_vs_real": {"frechet_distance": 2.5, **others},
        **others,
        **changes,
    }


STUDENTS = [row("steps-8", 8, 3.0), row("steps-4", 4, 3.5), row("steps-2", 2, 4.5)]
TEACHER = [row("teacher", n, distance) for n, distance in ((256, 2.75), (8, 9.0), (4, 30.0), (2, 90.0))]


def evaluated(folder, rows=(*TEACHER, *STUDENTS)):
    """The folder, with these rows in its evaluation.json."""
    (folder / "evaluation.json").write_text(json.dumps({"results": list(rows)}))
    return folder


def test_the_metrics_come_back(tmp_path):
    card = make_card(evaluated(tmp_path), content(), 4, "me/m")
    card.save(tmp_path / "README.md")
    metadata = metadata_load(tmp_path / "README.md")
    metrics = metadata["model-index"][0]["results"][0]["metrics"]
    distances = [m for m in metrics if m["type"] == "frechet_distance"]
    assert [(m["value"], m["args"]["num_inference_steps"]) for m in distances] == [(3.0, 8), (3.5, 4)]
    assert distances[0]["args"]["num_images"] == 2000 and distances[0]["args"]["real_vs_real"] == 2.5
    assert metadata["library_name"] == "diffusers" and "base_model" not in metadata and "datasets" not in metadata
    again = ModelCard.load(tmp_path / "README.md")
    assert [r.metric_value for r in again.data.eval_results if r.metric_type == "frechet_distance"] == [3.0, 3.5]


def test_the_hub_validates_it(hub, tmp_path):
    make_card(evaluated(tmp_path), content(), 4, "me/m").validate()


def test_later_students_are_not_in_an_earlier_card(tmp_path):
    text = str(make_card(evaluated(tmp_path), content(), 4, "me/m"))
    assert "steps-4" in text and "steps-2" not in text
    assert "num_inference_steps=4" in text


def test_what_was_not_measured_is_said(tmp_path):
    card = make_card(tmp_path, content(), 4, "me/m")
    assert "**Quality:** not measured" in str(card) and "model-index" not in str(card)
    evaluated(tmp_path, [*TEACHER, STUDENTS[0], STUDENTS[2]])
    text = str(make_card(tmp_path, content(), 4, "me/m"))
    assert "**Quality:** not measured" in text and "| 4 | `steps-4` | not measured |" in text


def test_sources_on_the_hub_are_metadata(tmp_path):
    about = content()["about"]
    about["teacher"] = {"source": "hub", "name": "google/ddpm-cifar10-32"}
    about["data"] = {"source": "hub", "name": "uoft-cs/cifar10"}
    card = make_card(tmp_path, content(about=about), 4, "me/m")
    assert card.data.base_model == "google/ddpm-cifar10-32" and card.data.base_model_relation == "finetune"
    assert card.data.datasets == ["uoft-cs/cifar10"]
    assert "[google/ddpm-cifar10-32](https://huggingface.co/google/ddpm-cifar10-32)" in str(card)


@pytest.mark.parametrize(
    "name", ["a | b", "x\n# Title", "<script>alert(1)</script>", "![p](http://x/y.png)", "`c`", "---"]
)
def test_text_of_others_is_only_shown(tmp_path, name):
    about = content()["about"]
    about["data"] = {"source": "hub", "name": name}
    settings = {**content()["settings"], "lr_scheduler": name}
    text = str(make_card(tmp_path, content(about=about, settings=settings), 4, "me/m"))
    body = text.split("\n---\n", 1)[1]
    assert "<script" not in body and "![p]" not in body and "\n# Title" not in body
    rows = [line for line in body.splitlines() if line.startswith("| lr\\_scheduler")]
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 3
    assert ModelCard(text).data.datasets == [name]


def train(teacher, folder, start, end, *more):
    """A chain of one update a stage."""
    argv = ["distill", f"--pretrained_teacher_model={teacher}", f"--output_dir={folder}", f"--start_steps={start}"]
    argv += [f"--end_steps={end}", "--updates_per_stage=1", "--train_batch_size=16", "--report_to=none"]
    assert main([*argv, "--dataset_name=digits", *more]) == 0
    return folder


def test_nothing_private_gets_in(teacher_folder, tmp_path):
    folder = train(teacher_folder, tmp_path / "run", 4, 1)
    text = (folder / "README.md").read_text()
    words = [str(tmp_path), str(teacher_folder), socket.gethostname(), "/root", "/home", "/tmp", "hf_"]
    words += [f" {getpass.getuser()} "]
    assert [w for w in words if w in text] == []
    assert "a model in a local folder" in text


def test_card_command_and_a_card_that_a_person_edited(teacher_folder, tmp_path, capsys):
    folder = train(teacher_folder, tmp_path / "run", 2, 1)
    first = (folder / "README.md").read_text()
    assert main(["card", str(folder)]) == 0
    assert (folder / "README.md").read_text() == first and not (folder / "README.1.md").exists()
    (folder / "README.md").write_text("my own words")
    assert main(["card", str(folder)]) == 0
    assert (folder / "README.md").read_text() == first
    assert (folder / "README.1.md").read_text() == "my own words"
    capsys.readouterr()
    for argv, said in (["card", str(tmp_path)], "holds no readable chain.json"), (["card"], "give the folder first"):
        assert main(argv) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1


def test_the_code_of_a_pushed_card_runs(hub, teacher_folder, tmp_path):
    train(teacher_folder, tmp_path / "run", 8, 2, "--push_to_hub", "--hub_model_id=me/m")
    text = hub.repo("me/m").head.files["README.md"].content.decode()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        assert len(block.strip().splitlines()) == 3
        names = {}
        exec(block, names)
        assert names["image"].size == (8, 8)


@pytest.mark.parametrize("factor, said", [(2, "in two (Algorithm 2"), (8, "in 8 (Algorithm 2")])
def test_how_the_students_learned_is_told(factor, said, tmp_path):
    told = content()
    told["settings"] |= {"stage_factor": factor}
    text = str(make_card(tmp_path, told, 4, "me/m"))
    assert said in text and "midpoint" not in text and "Huber" not in text and "cut off" not in text
    told["settings"] |= {"teacher_solver": "midpoint", "loss_type": "huber", "clip_loss": True}
    text = str(make_card(tmp_path, told, 4, "me/m"))
    assert "the midpoint rule makes of the teacher" in text and "pseudo-Huber distance" in text
    assert "judged by the finished image, whose values are cut off" in text


def test_figures_that_cannot_be_compared_stand_apart(tmp_path):
    few = [row("steps-4", 4, 8.0 + seed, seed=seed) for seed in (0, 1, 2)]
    evaluated(tmp_path, [row("steps-4", 4, 6.4, num_images=10_000), *few])
    text = str(make_card(tmp_path, content(), 4, "me/m"))
    _, first, second = text.split("## Evaluation")[1].split("## Training")[0].split("\n\nFD ")
    assert "10,000 images, seed 0." in first and "| 6.40 |" in first and "9.00" not in first
    assert "2,000 images, seeds 0, 1, 2: median [range]." in second and "| 9.00 [8.00, 10.00] |" in second


def test_a_distance_of_inception_is_called_fid(tmp_path):
    assert "It is not FID, and is comparable only" in str(make_card(evaluated(tmp_path), content(), 4, "me/m"))
    evaluated(tmp_path, [{**one, "metric": "FID"} for one in (*TEACHER, *STUDENTS)])
    text = str(make_card(tmp_path, content(), 4, "me/m"))
    assert "It is comparable only" in text and "not FID" not in text


def test_classes_guidance_and_the_conversion_stage_are_told(tmp_path):
    told = content()
    told["about"]["model"] |= {"num_classes": 2, "class_names": ["cat", "<b>dog</b>"]}
    told["about"] |= {"guidance_scale": 2.5, "converted": ["guidance of scale 2.5 is folded in"]}
    evaluated(tmp_path, [*TEACHER, row("converted", 256, 2.8), *STUDENTS])
    convert = {"name": "teacher", "updates": 7, "forward_passes": 35, "seconds": 3600.0, "loss": 0.1}
    told["stages"].insert(0, convert)
    text = str(make_card(tmp_path, told, 4, "me/m"))
    assert "Classifier-free guidance of scale 2.5" in text and "cannot be changed" in text
    assert "Classes 0 to 1, or by name: cat, &lt;b&gt;dog&lt;/b&gt;." in text
    assert "was converted first" in text and "in 7 updates. Its distance after that: 2.80 at 256 steps" in text
    # Its cost is counted: 7 + 10 + 10 updates, 35 + 50 + 50 units, 1.02 hours.
    assert "27 updates" in text and "135 forward" in text and "1.02 hours" in text
