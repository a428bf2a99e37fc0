"""Whatever is typed or written into the files: a plan, or an error of one line with exit status 2."""

import json
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffusers_progdistill.commands import main, parsing
from diffusers_progdistill.errors import InputError
from diffusers_progdistill.record import FORMAT, Record, read_finished
from diffusers_progdistill.training.config import DistillationConfig, TeacherConfig


CONFIGS = st.sampled_from([DistillationConfig, TeacherConfig])
NAMES = sorted({*DistillationConfig.__dataclass_fields__, *TeacherConfig.__dataclass_fields__})
WORDS = st.one_of(
    st.text(max_size=12),
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(str),
    st.sampled_from(["true", "false", "none", "null", "1e999", "-0", "0x10", "latest", "digits", "../..", "steps-8"]),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def plan_or_refusal(config_class, argv, capsys):
    """Parse and check like a command does: exit status 0 or 2, and then one line."""
    status = main.run(lambda: parsing.parse(config_class, argv, "progdistill", "").check())
    said = capsys.readouterr().err
    assert status in (0, 2)
    assert status == 0 or said.count("\n") == 1 and said.startswith("progdistill: error: ")


@FUZZ
@given(
    config_class=CONFIGS,
    pairs=st.lists(st.tuples(st.sampled_from(NAMES), WORDS), max_size=4),
    more=st.lists(WORDS, max_size=2),
)
def test_options(capsys, config_class, pairs, more):
    argv = [f"--{name}={value}" for name, value in pairs] + more
    if "-h" in argv or "--help" in argv:
        return
    plan_or_refusal(config_class, argv, capsys)


@FUZZ
@given(config_class=CONFIGS, content=st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), VALUES, max_size=4))
def test_yaml(tmp_path, capsys, config_class, content):
    import yaml

    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    plan_or_refusal(config_class, [f"--config={path}"], capsys)


@FUZZ
@given(config_class=CONFIGS, content=st.binary(max_size=60) | st.text(string.printable, max_size=60).map(str.encode))
def test_bytes_as_yaml(tmp_path, capsys, config_class, content):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    plan_or_refusal(config_class, [f"--config={path}"], capsys)


@FUZZ
@given(
    content=VALUES, keys=st.dictionaries(st.sampled_from(["settings", "stages", "finished", "about", "hub"]), VALUES)
)
def test_chain_json(tmp_path, content, keys):
    for value in (content, keys, {"format": FORMAT, "settings": {}, "stages": [], "finished": False, **keys}):
        (tmp_path / "chain.json").write_text(json.dumps(value))
        for function in (lambda: Record(tmp_path, {}), lambda: read_finished(tmp_path, "x")):
            try:
                function()
            except InputError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize("stage", ["../../etc", "steps-8/../..", "/tmp", "steps-"])
def test_stage_names_stay_in_the_folder(tmp_path, stage):
    content = {"settings": {}, "stages": [{"name": stage}], "finished": False}
    (tmp_path / "chain.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="chain.json"):
        Record(tmp_path, {})
