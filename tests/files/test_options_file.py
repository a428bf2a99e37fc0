"""A YAML file means what a person wrote, whatever YAML makes of the words."""

import pytest

from diffusers_progdistill.commands.evaluate import EvaluationConfig
from diffusers_progdistill.commands.main import main
from diffusers_progdistill.commands.parsing import parse
from diffusers_progdistill.errors import InputError
from diffusers_progdistill.training.config import DistillationConfig, TeacherConfig


def read(tmp_path, content, *typed, config=DistillationConfig, command="distill"):
    path = tmp_path / "run.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return parse(config, [f"--config={path}", *typed], f"progdistill {command}", "")


WORDS = [
    *[(f"mixed_precision: {word}", "no") for word in ("no", "No", "NO", "off", "false", "'no'", '"no"')],
    ("mixed_precision: BF16", "bf16"),
    *[(f"class_column: {word}", word) for word in ("no", "yes", "on", "true", "007", "2024-01-01", "1:30", "1e3")],
    *[(f"use_ema: {word}", True) for word in ("yes", "on", "true", "True", "'true'", "1", "y")],
    *[(f"center_crop: {word}", False) for word in ("no", "off", "false", "FALSE", "0", "'no'")],
    ("no_center_crop: true", False),
    ("no_center_crop: false", True),
    *[(f"learning_rate: {word}", 1e-4) for word in ("1e-4", "1E-4", "'1e-4'", "0.0001", "1.0e-4", "+1e-4", ".0001")],
    *[(f"updates_per_stage: {word}", 1000) for word in ("1000", "1_000", "1e3", "'1000'", "1000.0", "0x3e8")],
    ("seed: 010", 10),
    ("max_grad_norm: .inf", float("inf")),
    ("train-batch-size: 3", 3),
    ("--train_batch_size: 3", 3),
    ("revision: 0123456", "0123456"),
    ("hub_model_id: 'a: b # c'", "a: b # c"),
    ("hub_model_id: a=b", "a=b"),
    ("hub_model_id: |\n  text\n", "text"),
    ("class_column: null", None),
    ("class_column: ~", None),
    ("class_column:", None),
    ("report_to: null", "none"),
    ("seed: !!int '3'", 3),
]


@pytest.mark.parametrize("line, value", WORDS)
def test_a_word_means_what_was_written(line, value, tmp_path):
    name = line.split(":")[0].removeprefix("--").removeprefix("no_").replace("-", "_")
    assert getattr(read(tmp_path, line), name) == value


@pytest.mark.parametrize("word, value", [("no", "no"), ("off", "no"), ("False", "no"), ("FP16", "fp16")])
def test_a_typed_word_means_the_same(word, value):
    assert parse(DistillationConfig, [f"--mixed_precision={word}"], "x", "").mixed_precision == value
    assert parse(DistillationConfig, ["--updates_per_stage=1_0e2"], "x", "").updates_per_stage == 1000


@pytest.mark.parametrize("name", ["seeds", "steps", "samplers", "feature_extractor"])
@pytest.mark.parametrize("text", ["[1, 2, 3]", "\n- 1\n- 2\n- 3\n", "1,2,3", "'1,2,3'"])
def test_lists_for_options_that_take_several(name, text, tmp_path):
    assert getattr(read(tmp_path, f"{name}: {text}", config=EvaluationConfig, command="evaluate"), name) == "1,2,3"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_encodings_that_editors_mark(encoding, tmp_path):
    mark = b"\xff\xfe" if encoding == "utf-16-le" else b""
    assert read(tmp_path, mark + "class_column: größe\r\n".encode(encoding)).class_column == "größe"


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "{}", "null", "distill:\n", "train-teacher:\n"])
def test_files_without_options(text, tmp_path):
    assert read(tmp_path, text) == DistillationConfig()


def test_sections_anchors_and_merges(tmp_path):
    text = "distill: &all\n  seed: 7\n  use_ema: yes\nseed: 3\ntrain_teacher:\n  <<: *all\n  seed: 4\n"
    assert read(tmp_path, text).seed == 7
    teacher = "train_teacher: &t {seed: 4}\ndistill:\n  <<: *t\n  use_ema: yes\nseed: &s 3\neval_images: 10\n"
    assert read(tmp_path, teacher).seed == 4
    assert read(tmp_path, "seed: &s 3\nend_steps: *s\n").end_steps == 3
    assert read(tmp_path, text, "--seed=9").seed == 9
    sections = "evaluate: {seeds: [1, 2]}\nsample:\n  seed: 3\n"
    assert read(tmp_path, sections, config=EvaluationConfig, command="evaluate").seeds == "1,2"
    assert read(tmp_path, sections, config=TeacherConfig, command="train-teacher").seed == 0


REFUSED = [
    ("learning_rte: 1", "line 1: unknown option 'learning_rte'; did you mean learning_rate?"),
    ("config: x", "unknown option 'config'"),
    ("seed: 1\nseed: 2", "line 2: seed stands there already, in line 1"),
    ("train_batch_size: 1\ntrain-batch-size: 2", "stands there already"),
    ("distill: {seed: 1}\ndistill: {seed: 2}", "stands there already"),
    ("seed: many", "seed must be a whole number, not 'many'"),
    ("seed: true", "seed must be a whole number, not 'true'"),
    ("seed: 1.5", "seed must be a whole number, not '1.5'"),
    ("seed: 1,000", "seed must be a whole number"),
    ("learning_rate: 1e-4x", "learning_rate must be a number"),
    ("learning_rate: off", "learning_rate must be a number, not 'off'"),
    ("mixed_precision: yes", "mixed_precision must be one of no, fp16, bf16, not 'yes'"),
    ("mixed_precision: 16", "mixed_precision must be one of"),
    ("use_ema: 3", "use_ema must be true or false, not '3'"),
    ("use_ema:", "use_ema has no value"),
    ("seed: [1]", "seed must be a single value, not a list"),
    ("seed: {a: 1}", "seed must be a single value, not a mapping"),
    ("seeds: [[1]]", "unknown option 'seeds'"),
    ("- seed", "must hold lines of 'option: value'"),
    ("seed", "must hold lines of 'option: value'"),
    ("distill: 3", "must hold lines of 'option: value'"),
    ("distill:\n  distill:\n    seed: 1", "unknown option 'distill'"),
    ("use_ema: true\n\tseed: 3", "line 2: there is a tab"),
    ("distill:\n\tseed: 3", "line 2: there is a tab"),
    ("seed: 1\n---\nseed: 2", "second document"),
    ("seed: *nothing", "nothing is not defined"),
    ("seed: {", "this is not YAML"),
    ("seed: 1: 2", "two colons"),
    ("seed: !custom 3", "tag"),
    ("? [a]\n: 3", "must be a word"),
    ("a: &a {<<: *a}\ndistill: *a", ""),
    ("&a\n<<: *a", "leads back to itself"),
    ("compute_environment: LOCAL_MACHINE", "accelerate launch --config_file"),
    (b"seed: 1\nclass_column: gr\xf6\xdfe", "line 2: this is not UTF-8 text"),
    (b"\x00\x01\x02", "characters that no text has"),
    (b"\x89PNG\r\n\x1a\n", "UTF-8"),
    ("[" * 500, "option: value"),
]


@pytest.mark.parametrize("content, cause", REFUSED)
def test_refused_in_one_line_that_names_file_and_cause(content, cause, tmp_path):
    with pytest.raises(InputError) as error:
        read(tmp_path, content)
    message = str(error.value)
    assert message.startswith(f"--config {tmp_path / 'run.yaml'}") and cause in message
    assert len(message.splitlines()) == 1 and len(message) < 400 + len(str(tmp_path))


@pytest.mark.parametrize(
    "argv, cause",
    [
        (["--config"], "--config needs the path"),
        (["--config=a.yaml", "--config=b.yaml"], "2 times"),
        (["--config=nowhere.yaml"], "nowhere.yaml cannot be read: No such file or directory"),
        (["--config=."], "Is a directory"),
        (["--confg=x"], "unknown option --confg; did you mean --config?"),
        (["stray"], "unexpected word 'stray'"),
        (["--seed=x"], "--seed must be a whole number, not 'x'"),
        (["--lr_scheduler=l3"], "--lr_scheduler must be one of linear, cosine, "),
    ],
)
def test_typed_mistakes(argv, cause, capsys):
    assert main(["distill", *argv]) == 2
    error = capsys.readouterr().err
    assert cause in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "content, cause",
    [
        ('{"in_channels": 1,\n oops}', "double quotes: line 2 column 2"),
        ("[1]", "not a JSON object"),
        (b'{"a": "\xf6"}', "not a JSON object ('utf-8' codec"),
        ('{"in_chanels": 1}', "did you mean in_channels?"),
        ('{"vocab_size": 1}', "no 'vocab_size'"),
        ('{"in_channels": 1, "block_out_channels": "wide"}', "--model_config_name_or_path"),
        ('{"in_channels": "three"}', "--model_config_name_or_path"),
    ],
)
def test_configs_of_networks(content, cause, tmp_path, capsys):
    path = tmp_path / "net.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    options = ["--dataset_name=digits", "--report_to=none", "--output_dir", str(tmp_path / "out")]
    assert main(["train-teacher", *options, "--model_config_name_or_path", str(path)]) == 2
    error = capsys.readouterr().err
    assert cause in error and error.count("\n") == 1 and "--model_config_name_or_path" in error
