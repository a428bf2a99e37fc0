"""Writes the option tables of commands.md from the config classes: python docs/generate_commands.py"""

from dataclasses import MISSING, fields
from pathlib import Path

from diffusers_progdistill.commands import evaluate, push, sample
from diffusers_progdistill.training.config import AdoptionConfig, DistillationConfig, TeacherConfig


HEAD = """# Commands

`progdistill COMMAND --help` prints the same. `--config FILE.yaml` holds options as `option: value` lines; typed
options win. Exit status: 0 done, 1 failed during work, 2 refused before work, 3 trained but
something is not on the Hub.

## progdistill demo

The demo of the README. `--output_dir` (`demo-digits`) and `--scale` (1.0, the fraction of the updates and images).
"""

PAGES = {
    "train-teacher": TeacherConfig,
    "distill": DistillationConfig,
    "adopt": AdoptionConfig,
    "evaluate": evaluate.EvaluationConfig,
    "push": push.PushConfig,
    "sample": sample.SampleConfig,
}


def page() -> str:
    """The text of commands.md."""
    parts = [HEAD]
    for command, config in PAGES.items():
        parts.append(f"## progdistill {command}\n\n| option | default | |\n|---|---|---|")
        for field in fields(config):
            default = "" if field.default in (None, "", MISSING) else f"`{field.default}`"
            parts.append(f"| `--{field.name}` | {default} | {field.metadata['help'].replace('|', chr(92) + '|')} |")
        parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    Path(__file__).with_name("commands.md").write_text(page())
