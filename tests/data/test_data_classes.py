"""The classes of the data are those of the teacher, of its students, their pictures, cards and figures."""

import contextlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.image_folders import loaded, make_folder, make_table
from helpers.networks import tiny_unet

from diffusers_progdistill import ProgressiveDistillationPipeline, ProgressiveDistillationScheduler, save_pipeline
from diffusers_progdistill.commands.main import main
from diffusers_progdistill.data.classes import TeacherClasses, fit_classes, match_classes, spans
from diffusers_progdistill.errors import InputError
from diffusers_progdistill.evaluation import sampling
from diffusers_progdistill.pipelines.export import attach_metadata
from diffusers_progdistill.training.run import check_classes


FIVE = {0: "ant", 1: "bee", 2: "cat", 3: "dog", 4: "eel"}

MATCHES = {
    "by name": ({0: "cat", 1: "eel"}, True, range(5), FIVE, {0: 2, 1: 4}),
    "the same": (FIVE, True, range(5), FIVE, {k: k for k in range(5)}),
    "numbers keep their value": ({3: "3", 4: "4"}, False, range(5), {}, {3: 3, 4: 4}),
    "numbers and names": ({3: "3", 4: "4"}, False, range(5), FIVE, {3: 3, 4: 4}),
    "numbers sorted as text": ({2: "2", 10: "10"}, False, range(4), {0: "0", 1: "10", 2: "2"}, {2: 2, 10: 1}),
    "names and no names": ({0: "cat", 1: "dog"}, True, range(5), {}, {0: 0, 1: 1}),
    "any label": ({7: "7"}, False, None, {}, {7: 7}),
}


@pytest.mark.parametrize("used, has_names, labels, names, mapping", MATCHES.values(), ids=MATCHES.keys())
def test_classes_are_matched_by_name_where_both_have_names(used, has_names, labels, names, mapping):
    labels = None if labels is None else list(labels)
    assert match_classes(used, has_names, TeacherClasses(labels, names)) == mapping


UNKNOWN = {
    "a name": ({0: "cat", 1: "fox"}, True, range(5), FIVE, "does not know the class fox; its classes are ant, bee"),
    "a number": ({5: "5"}, False, range(5), {}, "does not know the class 5; it knows the 5 labels 0 to 4"),
    "many": ({k: str(k) for k in range(9)}, False, [0, 2], {}, r"classes 1, 3, 4 and 4 more; .* 0, 2"),
    "too many names": ({5: "fox"}, True, range(5), {}, r"fox \(label 5\)"),
    "not trained": ({4: "eel"}, True, [0, 1, 2, 3], {k: FIVE[k] for k in range(4)}, "class eel"),
}


@pytest.mark.parametrize("used, has_names, labels, names, why", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_classes_that_the_teacher_does_not_know_are_refused(used, has_names, labels, names, why):
    with pytest.raises(InputError, match=f"--class_column.*{why}"):
        match_classes(used, has_names, TeacherClasses(list(labels), names))


@pytest.mark.parametrize("labels, text", [([0], "0"), ([0, 1, 2, 5], "0 to 2, 5"), ([3, 7], "3, 7"), ([], "")])
def test_spans(labels, text):
    assert spans(labels) == text


def test_the_data_take_the_labels_and_names_of_the_teacher(tmp_path, caplog):
    folder = make_folder(tmp_path / "images", ["eel/1.png", "bee/2.png", "dog/3.png"])
    data = loaded(folder, class_column="label")
    fit_classes(data, TeacherClasses(list(range(5)), FIVE))
    # In the order of the files: bee, dog, eel.
    assert data.labels.tolist() == [1, 3, 4] == data.known_labels
    assert data.class_names == list(FIVE.values()) and data.num_classes == 5
    (line,) = caplog.messages
    assert "matched with the teacher's by name: bee is label 1, dog is label 3, eel is label 4; 3 of its 5" in line


def teacher_of(folder, embeddings=5, names=None, class_embed_type=None, **metadata):
    unet = tiny_unet(channels=3, widths=(8,), num_class_embeds=embeddings, class_embed_type=class_embed_type)
    metadata |= {"class_names": names, "num_classes": len(names)} if names else {}
    scheduler = ProgressiveDistillationScheduler()
    save_pipeline(unet, attach_metadata(scheduler, **metadata) if metadata else scheduler, folder)
    return folder


def distilled(teacher, data, folder, *options):
    common = ["--start_steps=2", "--end_steps=1", "--updates_per_stage=1", "--train_batch_size=2", "--report_to=none"]
    given = [f"--pretrained_teacher_model={teacher}", f"--train_data_dir={data}", f"--output_dir={folder}"]
    return main(["distill", *common, *given, "--class_column=label", *options])


def test_a_teacher_of_more_classes_than_the_data(tmp_path, caplog, monkeypatch):
    drawn = []
    own = sampling.sample
    monkeypatch.setattr(sampling, "sample", lambda *args: drawn.append(args[-1]) or own(*args))
    data = make_folder(tmp_path / "images", [f"{c}/{k}.png" for c in "abcd" for k in range(2)])
    assert distilled(teacher_of(tmp_path / "teacher"), data, tmp_path / "run") == 0
    assert "a is label 0, b is label 1, c is label 2, d is label 3; 4 of its 5 classes are used" in caplog.text
    # The teacher draws what its students can.
    assert drawn and {label for labels in drawn for label in labels} == {0, 1, 2, 3}
    pipe = ProgressiveDistillationPipeline.from_pretrained(tmp_path / "run" / "steps-1")
    assert pipe.known_labels == [0, 1, 2, 3] and pipe.num_classes == 5 and pipe.null_label is None
    assert pipe.id2label == dict(enumerate("abcd"))
    with pytest.raises(ValueError, match=r"in \[0, 3\]"):
        pipe(class_labels=4)
    card = (tmp_path / "run" / "README.md").read_text()
    assert "Classes 0 to 3, or by name: a, b, c, d." in card
    assert json.loads((tmp_path / "run" / "chain.json").read_text())["about"]["model"]["known_labels"] == [0, 1, 2, 3]
    # Resumed with the same settings, nothing is left to do.
    assert distilled(tmp_path / "teacher", data, tmp_path / "run") == 0


@pytest.mark.slow
def test_figures_are_of_the_classes_that_were_trained(tmp_path, monkeypatch):
    data = make_folder(tmp_path / "images", [f"{c}/{k}.png" for c in ("dog", "bee", "cat") for k in range(4)])
    teacher = teacher_of(tmp_path / "teacher", names=list(FIVE.values()))
    options = [f"--cache_dir={tmp_path / 'cache'}"]
    assert distilled(teacher, data, tmp_path / "run", *options) == 0
    drawn, own = [], sampling.sample
    monkeypatch.setattr(sampling, "sample", lambda *args: drawn.append(args[-1]) or own(*args))
    options += ["--num_images=4", "--steps=1", "--reference_steps=2"]
    assert main(["evaluate", str(tmp_path / "run"), *options]) == 0
    assert drawn and {label for labels in drawn for label in labels} == {1, 2, 3}


def test_a_teacher_that_takes_any_number_for_a_label(tmp_path):
    data = make_folder(tmp_path / "images", ["3/1.png", "10/2.png"])
    teacher = teacher_of(tmp_path / "teacher", embeddings=None, class_embed_type="timestep")
    assert distilled(teacher, data, tmp_path / "run") == 0
    pipe = ProgressiveDistillationPipeline.from_pretrained(tmp_path / "run" / "steps-1")
    assert pipe.known_labels == [3, 10]


def test_students_of_some_named_classes(tmp_path):
    data = make_folder(tmp_path / "images", ["eel/1.png", "bee/2.png"])
    teacher = teacher_of(tmp_path / "teacher", names=list(FIVE.values()))
    assert distilled(teacher, data, tmp_path / "run") == 0
    pipe = ProgressiveDistillationPipeline.from_pretrained(tmp_path / "run" / "steps-1")
    assert pipe.known_labels == [1, 4] and pipe.id2label == {1: "bee", 4: "eel"}
    seeds = [torch.Generator().manual_seed(0) for _ in range(2)]
    by_name, by_number = (
        pipe(class_labels=c, generator=g, output_type="np").images for c, g in zip(("eel", 4), seeds)
    )
    assert np.array_equal(by_name, by_number)
    card = (tmp_path / "run" / "README.md").read_text()
    assert "pipe(class_labels=1)" in card and "Classes 1, 4 (of 5; the others were not in the training data)" in card


@pytest.mark.parametrize("names", [["fox/1.png", "bee/2.png"], ["Ant/1.png", "bee/2.png"], ["1/1.png", "2/2.png"]])
def test_unknown_classes_are_refused_before_anything_is_written(names, tmp_path, capsys):
    teacher = teacher_of(tmp_path / "teacher", names=["ant", "bee", "3"], embeddings=3)
    assert distilled(teacher, make_folder(tmp_path / "images", names), tmp_path / "run") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "--class_column: the teacher does not know the class" in line and not (tmp_path / "run").exists()


def test_a_run_goes_on_only_with_the_same_classes(tmp_path, capsys):
    data = make_folder(tmp_path / "images", ["cat/1.png", "dog/2.png"])
    teacher = teacher_of(tmp_path / "teacher", embeddings=2)
    assert distilled(teacher, data, tmp_path / "run") == 0
    (data / "cat").rename(data / "eel")
    assert distilled(teacher, data, tmp_path / "run") == 2
    assert "labels stand for other classes (cat -> dog, dog -> eel)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "begun, now, is_right",
    [
        ({"num_classes": 3, "class_names": ["0", "1", "2"]}, {"num_classes": 3, "class_names": ["0", "1", "2"]}, True),
        ({"num_classes": 2, "class_names": ["0", "10"]}, {"num_classes": 2, "class_names": ["0", "1"]}, False),
        ({"num_classes": 3}, {"num_classes": 3, "known_labels": [0, 2]}, False),
        ({"num_classes": None}, {}, True),
        (None, {"num_classes": 3}, True),
    ],
)
def test_classes_of_a_run_are_those_that_it_began_with(begun, now, is_right):
    record = SimpleNamespace(folder="run", content={} if begun is None else {"about": {"model": begun}})
    with contextlib.nullcontext() if is_right else pytest.raises(InputError, match="stand for other classes"):
        check_classes(record, now)


def test_class_10_of_the_data_is_label_10_of_the_students(tmp_path):
    data = make_table(tmp_path / "x.parquet", range(12), label=list(range(12)))
    assert distilled(teacher_of(tmp_path / "teacher", embeddings=12), data, tmp_path / "run") == 0
    pipe = ProgressiveDistillationPipeline.from_pretrained(tmp_path / "run" / "steps-1")
    assert pipe.get_label_ids(["10", "2"]) == [10, 2] and pipe.known_labels == list(range(12))


def test_a_teacher_of_labels_with_gaps_knows_which_they_are(tmp_path):
    data = make_folder(tmp_path / "images", ["3/1.png", "10/2.png"])
    options = ["--max_train_steps=1", "--train_batch_size=2", "--report_to=none", "--lr_warmup_steps=0"]
    options += [f"--train_data_dir={data}", f"--output_dir={tmp_path / 'teacher'}", "--class_column=label"]
    assert main(["train-teacher", *options]) == 0
    pipe = ProgressiveDistillationPipeline.from_pretrained(tmp_path / "teacher")
    assert pipe.known_labels == [3, 10] and pipe.num_classes == 11
    other = make_folder(tmp_path / "others", ["3/1.png", "4/2.png"])
    assert distilled(tmp_path / "teacher", other, tmp_path / "run") == 2
    assert distilled(tmp_path / "teacher", data, tmp_path / "run") == 0
