"""Every snippet marked to run in the README and the docs runs; the command page is what the code says."""

import re
import runpy
import shutil
from pathlib import Path

import pytest
from helpers.networks import tiny_unet

from diffusers_progdistill import ProgressiveDistillationScheduler, save_pipeline
from diffusers_progdistill.pipelines.export import with_metadata


ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPET = re.compile(r"<!-- run(?:: \w+)? -->\n```python\n(.*?)```", re.DOTALL)
SNIPPETS = [(page.name, k, code) for page in PAGES for k, code in enumerate(SNIPPET.findall(page.read_text()))]


@pytest.mark.parametrize("page, number, code", SNIPPETS)
def test_snippet_runs(page, number, code, tmp_path, monkeypatch, teacher_folder):
    scheduler = with_metadata(ProgressiveDistillationScheduler(), num_inference_steps=4)
    save_pipeline(tiny_unet(), scheduler, tmp_path / "demo-digits" / "steps-4")
    scheduler = with_metadata(scheduler, num_classes=2, class_names=["cat", "dog"])
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
