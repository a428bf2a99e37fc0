"""Writes the option tables of commands.md from the config classes: python docs/generate_commands.py"""

from dataclasses import fields
from pathlib import Path

from diffusers_progdistill.commands import card, convert, demo, distill, evaluate, push, sample, train_teacher
from diffusers_progdistill.options import list_choices
from diffusers_progdistill.training.config import ConversionConfig, DistillationConfig, TeacherConfig


HEAD = """# Commands

`progdistill COMMAND --help` prints the same. `--config FILE.yaml` holds options as `option: value` lines, and those of
one command in a section of its name (`train-teacher:`, `distill:`, `evaluate:`, ...); typed options win. A value is
what is written: `mixed_precision: no` is the word, `1e-4` and `1_000` are numbers. In a path, `~`, `~user`, `$NAME`
and `${NAME}` stand for what a shell makes of them, typed or in a file; `./~` is a folder of that name. Exit status: 0
done, 1 failed during work, 2 refused before work, 3 trained but something is not on the Hub.
"""

TRAINING = {
    "train-teacher": (train_teacher, TeacherConfig),
    "distill": (distill, DistillationConfig),
    "convert": (convert, ConversionConfig),
}
OTHERS = {
    "evaluate DIR [DIR ...]": (evaluate, evaluate.EvaluationConfig),
    "sample DIR": (sample, sample.SampleConfig),
    "push OUTPUT_DIR": (push, push.PushConfig),
    "card OUTPUT_DIR": (card, card.CardConfig),
}


def options_of(config) -> dict[str, str]:
    """The row of each option: its name, its default, what it does."""
    rows = {}
    for field in fields(config):
        default = "" if field.default in (None, "") else f"`{field.default}`"
        text, choices = field.metadata["help"].replace("|", "\\|"), list_choices(field.type)
        if choices:
            text += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
        rows[field.name] = f"| `--{field.name}` | {default} | {text} |"
    return rows


def section(title: str, text: str, rows: list[str]) -> str:
    """A command, or what several have in common."""
    table = ["", "| option | default | |", "|---|---|---|", *rows] if rows else []
    return "\n".join([f"## {title}", "", text, *table, ""])


def described(module) -> str:
    """What a command's help page says of it, but for its usage."""
    return module.DESCRIPTION.split("\nusage:")[0]


def page() -> str:
    """The text of commands.md."""
    tables = [options_of(config) for _, config in TRAINING.values()]
    shared = {name: row for name, row in tables[0].items() if all(table.get(name) == row for table in tables)}
    names = ", ".join(f"`{name}`" for name in TRAINING)
    parts = [HEAD, section("progdistill demo", described(demo), list(options_of(demo.DemoConfig).values()))]
    for (command, (module, _)), rows in zip(TRAINING.items(), tables):
        own = [row for name, row in rows.items() if name not in shared]
        parts.append(section(f"progdistill {command}", described(module), own))
    parts.append(
        section("Common options", f"{names} have these in common, with the same defaults.", list(shared.values()))
    )
    for command, (module, config) in OTHERS.items():
        parts.append(section(f"progdistill {command}", described(module), list(options_of(config).values())))
    return "\n".join(parts)


if __name__ == "__main__":
    Path(__file__).with_name("commands.md").write_text(page())
