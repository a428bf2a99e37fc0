"""Every snippet marked to run in the README and the docs runs; pages about the code are what the code says."""

import pkgutil
import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest
from helpers.networks import tiny_unet
from helpers.stages import distillation_task, make_run
from test_architecture import LAYERS, PACKAGE

from diffusers_progdistill import ProgressiveDistillationScheduler, save_pipeline
from diffusers_progdistill.objectives.stage import Stage
from diffusers_progdistill.pipelines.export import attach_metadata
from diffusers_progdistill.training.loop import StageTrainer
from diffusers_progdistill.training.monitor import Monitor


ROOT = Path(__file__).parent.parent
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPET = re.compile(r"<!-- run(?:: \w+)? -->\n```python\n(.*?)```", re.DOTALL)
SNIPPETS = [(page.name, k, code) for page in PAGES for k, code in enumerate(SNIPPET.findall(page.read_text()))]


@pytest.mark.parametrize("page, number, code", SNIPPETS)
def test_snippet_runs(page, number, code, tmp_path, monkeypatch, teacher_folder):
    scheduler = attach_metadata(ProgressiveDistillationScheduler(), num_inference_steps=4)
    save_pipeline(tiny_unet(), scheduler, tmp_path / "demo-digits" / "steps-4")
    scheduler = attach_metadata(scheduler, num_classes=2, class_names=["cat", "dog"])
    save_pipeline(tiny_unet(num_class_embeds=2), scheduler, tmp_path / "my-pets" / "steps-4")
    shutil.copytree(teacher_folder, tmp_path / "demo-digits" / "teacher")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, f"{page}[{number}]", "exec"), {"__name__": "__main__"})


def test_every_python_snippet_is_marked_to_run():
    for page in PAGES:
        assert page.read_text().count("```python") == len(SNIPPET.findall(page.read_text()))


def test_command_page_is_up_to_date():
    page = runpy.run_path(str(ROOT / "docs" / "generate_commands.py"))["page"]()
    assert page == (ROOT / "docs" / "commands.md").read_text()


def test_pages_link_to_files_that_exist():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            if "images/" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("name", re.findall(r"^::: ([\w.]+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE))
def test_what_the_api_page_names_is_there(name):
    pkgutil.resolve_name(name)


def section(title):
    """The text of a section of the page about the architecture."""
    return ARCHITECTURE.split(f"## {title}\n")[1].split("\n## ")[0]


def test_the_layers_are_those_of_the_code():
    listed = re.findall(r"^\| `(\w+)/` \|", section("Layers"), re.MULTILINE)
    assert listed == [layer for layer in LAYERS if layer]
    own = re.findall(r"`(\w+)`", section("Layers").split("| `processes/`")[0].split("|---|---|")[1])
    assert {f"{name}.py" for name in own[:8]} == {p.name for p in PACKAGE.glob("*.py")} - {"__init__.py"}


def test_files_that_the_architecture_names_are_there():
    for name in re.findall(r"`([\w./]+\.(?:py|jinja))`", ARCHITECTURE):
        if "NAME" not in name:
            places = [PACKAGE / name, ROOT / name]
            assert any(place.exists() for place in places), name


def trace_update():
    """The files of the package that the second update of a distillation stage enters, in order of the first entry."""
    run, task = make_run(train_batch_size=16, logging_steps=100), distillation_task(Stage("steps-4", 3, 5, 4))
    monitor, entered = Monitor(run.accelerator, None, task.stage.forward_passes), []
    monitor.start(task.stage, 1, 1, run.global_batch)
    trainer = StageTrainer(run, task, monitor)
    set_learning_rate = trainer.set_learning_rate

    def enter(frame, event, _):
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE) and path not in entered:
            entered.append(path)

    def watch(update):
        sys.setprofile(enter if update == 1 else None)
        return set_learning_rate(update)

    trainer.set_learning_rate = watch
    try:
        trainer.train()
    finally:
        sys.setprofile(None)
    return [path.relative_to(PACKAGE).as_posix() for path in entered]


def test_one_batch_goes_the_way_that_the_architecture_lists():
    page = section("The way of one batch")
    listed, entered = re.findall(r"^\d+\. `([\w/.]+)`", page, re.MULTILINE), trace_update()
    assert [name for name in entered if name in listed] == listed
    assert set(entered) == set(re.findall(r"`([\w/]+\.py)`", page))


def test_the_picture_of_the_architecture_shows_what_its_page_lists():
    drawn = runpy.run_path(str(ROOT / "docs" / "pictures" / "architecture.py"), run_name="picture")
    assert drawn["LAYERS"][1:] == [layer for layer in LAYERS if layer]
    files = [file for file, *_ in drawn["WAY"]]
    assert files == re.findall(r"^\d+\. `([\w/.]+)`", section("The way of one batch"), re.MULTILINE)
