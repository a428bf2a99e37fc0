"""Students on the Hub: what arrives, in which order, and that nothing is lost or done twice when things go wrong."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from helpers.processes import command, run, start, wait_for

from diffusers_progdistill import ProgressiveDistillationPipeline
from diffusers_progdistill.commands.main import main
from diffusers_progdistill.errors import PublishError
from diffusers_progdistill.hub.folder import Publication, publish_folder
from diffusers_progdistill.hub.retries import retry
from diffusers_progdistill.record import read_finished


MODEL_FILES = {
    *(".gitattributes", "README.md", "model_index.json", "samples.png", "scheduler/scheduler_config.json"),
    *("unet/config.json", "unet/diffusion_pytorch_model.safetensors"),
}
SHORT_DELAYS = (0.05,) * 9


def arguments(teacher, folder, start=8, end=1, *more):
    options = {"pretrained_teacher_model": teacher, "output_dir": folder, "start_steps": start, "end_steps": end}
    options |= {"dataset_name": "digits", "updates_per_stage": 1, "train_batch_size": 16, "report_to": "none"}
    return ["distill", *(f"--{k}={v}" for k, v in options.items()), *more]


@pytest.fixture(scope="module")
def finished(teacher_folder, tmp_path_factory):
    """A chain of 8 to 1 steps that was trained without pushing."""
    folder = tmp_path_factory.mktemp("chain") / "my-digits"
    assert main(arguments(teacher_folder, folder)) == 0
    return folder


@pytest.fixture
def chain(finished, tmp_path):
    """A copy of it that a test may write to."""
    return Path(shutil.copytree(finished, tmp_path / "my-digits"))


def sample_teacher(pipeline, steps):
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    images = pipeline(batch_size=2, generator=generator, num_inference_steps=steps, output_type="np").images
    return torch.as_tensor(images)


def assert_complete(hub, folder, repo_id, cache, steps=(4, 2, 1)):
    """One commit and one tag a student, in the order of the chain, and each tag's images are the local student's."""
    repo = hub.repo(repo_id)
    students = [c for c in repo.commits[1:] if c.title.startswith("Student")]
    assert [c.title for c in students] == [f"Student of steps {n}" for n in steps]
    assert {t: o for t, o in repo.tags.items()} == {f"steps-{n}": c.oid for n, c in zip(steps, students)}
    assert set(repo.head.files) == MODEL_FILES
    for n in steps:
        options = {"cache_dir": cache, "revision": f"steps-{n}"}
        remote = sample_teacher(DiffusionPipeline.from_pretrained(repo_id, **options), n)
        assert torch.equal(remote, sample_teacher(DiffusionPipeline.from_pretrained(folder / f"steps-{n}"), n))


def test_a_chain_pushed_while_it_trains(hub, teacher_folder, tmp_path, capsys):
    more = ["--push_to_hub", "--hub_model_id=me/my-model", "--hub_private_repo", "--hub_license=mit"]
    assert main(arguments(teacher_folder, tmp_path / "run", 8, 1, *more)) == 0
    assert_complete(hub, tmp_path / "run", "me/my-model", tmp_path / "cache")
    assert len(hub.repo("me/my-model").commits) == 1 + 3
    assert hub.repo("me/my-model").private
    assert "license: mit" in hub.repo("me/my-model").head.files["README.md"].content.decode()
    # A finished chain has nothing left to do, and says so.
    assert main(arguments(teacher_folder, tmp_path / "run", 8, 1, *more)) == 0
    assert len(hub.repo("me/my-model").commits) == 1 + 3
    assert "finished already" in capsys.readouterr().out


def test_no_request_without_push_to_hub(hub, teacher_folder, tmp_path):
    assert main(arguments(teacher_folder, tmp_path / "run", 4, 1)) == 0
    assert hub.requests == []


def test_publishing_takes_no_time_from_training(hub, chain):
    """The calls return although the Hub does not answer at all."""
    content = read_finished(chain, "")
    hub.add_repo("me/my-digits")
    hub.gate.clear()
    publication = Publication(chain, "me/my-digits")
    for stage in content["stages"]:
        publication.add(stage["name"], "the card")
    assert list(publication.waiting) == [s["name"] for s in content["stages"]]
    hub.gate.set()
    publication.close()
    assert not publication.waiting and len(hub.repo("me/my-digits").tags) == len(content["stages"])


def test_push_of_a_folder_trained_without_pushing(hub, chain, tmp_path):
    assert main(["push", str(chain), "--hub_model_id", "my-org/digits"]) == 0
    assert_complete(hub, chain, "my-org/digits", tmp_path / "cache")
    commits = len(hub.repo("my-org/digits").commits)
    assert main(["push", str(chain), "--hub_model_id", "my-org/digits"]) == 0
    assert len(hub.repo("my-org/digits").commits) == commits


def test_the_name_of_the_folder_is_the_default(hub, chain):
    assert main(["push", str(chain)]) == 0
    assert ("models", "me/my-digits") in hub.repos


def test_a_new_run_moves_the_tags(hub, chain, teacher_folder, tmp_path):
    assert main(["push", str(chain), "--hub_model_id", "me/digits"]) == 0
    first = dict(hub.repo("me/digits").tags)
    more = ["--push_to_hub", "--hub_model_id=me/digits", "--seed=1"]
    assert main(arguments(teacher_folder, tmp_path / "again", 8, 1, *more)) == 0
    assert all(hub.repo("me/digits").tags[t] != oid for t, oid in first.items())


def test_people_find_their_own_files_untouched(hub, chain):
    hub.add_repo("me/digits", files={"notes.txt": b"mine"})
    assert main(["push", str(chain), "--hub_model_id", "me/digits"]) == 0
    assert hub.repo("me/digits").head.files["notes.txt"].content == b"mine"


@pytest.mark.parametrize(
    "token, model_id, said",
    [
        ("hf_wrong", "me/x", "--hub_token"),
        ("", "me/x", "--hub_token"),
        ("hf_read", "me/x", "--hub_model_id"),
        ("hf_write", "somebody-else/theirs", "--hub_model_id"),
        ("hf_write", "somebody-else/new", "--hub_model_id"),
        ("hf_write", "me/a name", "--hub_model_id"),
        ("hf_write", "me/public", "--hub_private_repo"),
    ],
)
def test_rights_are_checked_before_training(hub, teacher_folder, tmp_path, monkeypatch, capsys, token, model_id, said):
    monkeypatch.setenv("HF_TOKEN", token)
    hub.add_repo("somebody-else/theirs")
    hub.add_repo("me/public")
    more = ["--push_to_hub", f"--hub_model_id={model_id}", "--hub_private_repo"]
    assert main(arguments(teacher_folder, tmp_path / "run", 8, 1, *more)) == 2
    assert not (tmp_path / "run").exists()
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_what_is_missing_is_named_and_finished_later(hub, chain, tmp_path, capsys, monkeypatch):
    hub.fail("POST", "/commit/", 403)
    assert main(["push", str(chain), "--hub_model_id", "me/digits"]) == 3
    said = capsys.readouterr().err
    assert all(f"steps-{n}" in said for n in (4, 2, 1)) and "progdistill push" in said
    assert len([r for r in hub.requests if "/commit/" in r[1]]) == 1, "403 is not tried again"
    assert main(["push", str(chain), "--hub_model_id", "me/digits"]) == 0
    assert_complete(hub, chain, "me/digits", tmp_path / "cache")


def requests_of_a_push(hub, chain, repo_id):
    """The requests of one student's push, in order."""
    one_student(hub, chain, repo_id)
    return [r for r in hub.requests if "agent-harness" not in r[1]]


def one_student(hub, chain, repo_id, retry_delays=SHORT_DELAYS):
    content = read_finished(chain, "")
    content["stages"] = content["stages"][:1]
    hub.add_repo(repo_id)
    hub.stored.clear()
    hub.requests.clear()
    hub_of_run = {"repo_id": repo_id, "license": "unknown"}
    publish_folder(chain, content, hub_of_run, log=lambda line: None, retry_delays=retry_delays)


FAULTS = {
    "503 twice": {"kind": 503, "times": 2},
    "429": {"kind": 429, "headers": {"Retry-After": "1"}},
    "cut": {"kind": "cut"},
    "lost reply": {"kind": "lost"},
    "500": {"kind": 500},
    "down": {"kind": "down", "seconds": 20},
}


def try_every_request(hub, chain, fault, retry_delays=SHORT_DELAYS):
    requests = requests_of_a_push(hub, chain, "me/clean")
    assert any("/commit/" in path for _, path in requests) and any("/tag/" in path for _, path in requests)
    for k in range(len(requests)):
        hub.faults.clear()
        hub.fail(None, "^(?!/api/agent)", skip=k, **FAULTS[fault])
        one_student(hub, chain, f"me/number-{k}", retry_delays)
        assert hub.faults[0].fired, "the fault did not happen"
        repo = hub.repo(f"me/number-{k}")
        assert [c.title for c in repo.commits] == ["initial commit", "Student of steps 4"], requests[k]
        assert repo.tags == {"steps-4": repo.head.oid}, requests[k]


@pytest.mark.slow
@pytest.mark.parametrize("fault", [f for f in FAULTS if f != "down"])
def test_a_fault_at_every_request(hub, chain, fault):
    try_every_request(hub, chain, fault)


@pytest.mark.slow
def test_a_server_that_is_down_for_a_while_at_every_request(hub, chain, monkeypatch):
    # The clock of the retries is shortened with that of the fault.
    monkeypatch.setitem(FAULTS["down"], "seconds", 1)
    try_every_request(hub, chain, "down", (0.25,) * 9)


@pytest.mark.parametrize("fault", ["lost reply", "cut"])
@pytest.mark.parametrize("request_", ["/commit/", "/tag/", "/storage/"])
def test_a_fault_where_the_client_does_not_try_again(hub, chain, fault, request_):
    hub.fail(None, request_, **FAULTS[fault])
    one_student(hub, chain, "me/digits")
    repo = hub.repo("me/digits")
    assert [c.title for c in repo.commits] == ["initial commit", "Student of steps 4"]
    assert repo.tags == {"steps-4": repo.head.oid} and hub.faults[0].fired


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_whole_chain_through_a_fault(hub, teacher_folder, tmp_path, fault):
    hub.fail("POST", "/commit/", skip=2, **FAULTS[fault])
    assert main(arguments(teacher_folder, tmp_path / "run", 8, 1, "--push_to_hub", "--hub_model_id=me/m")) == 0
    assert hub.faults[0].fired
    assert_complete(hub, tmp_path / "run", "me/m", tmp_path / "cache")
    assert len(hub.repo("me/m").commits) == 1 + 3


def test_retries_end_and_respect_retry_after():
    delays, calls = [], []

    class Answer:
        status_code, headers = 429, {"Retry-After": "7"}

    class Busy(Exception):
        response = Answer()

    def always_busy():
        calls.append(1)
        raise Busy

    with pytest.raises(Busy):
        retry(always_busy, lambda line: None, (1, 10), delays.append)
    assert len(calls) == 3 and delays == [7, 10]
    with pytest.raises(Busy):
        retry(always_busy, lambda line: None, (1, 10), lambda seconds: True)
    assert len(calls) == 4, "whoever waits may give up"


def test_killed_during_an_upload(hub, teacher_folder, tmp_path):
    argv = arguments(teacher_folder, tmp_path / "run", 16, 1, "--push_to_hub", "--hub_model_id=me/m")
    process = start(command(*argv))
    assert wait_for(lambda: any("/preupload/" in path for _, path in hub.requests), process)
    hub.gate.clear()
    record = tmp_path / "run" / "chain.json"
    assert wait_for(lambda: '"finished": true' in record.read_text(), process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    hub.gate.set()
    assert main(["push", str(tmp_path / "run")]) == 0
    assert_complete(hub, tmp_path / "run", "me/m", tmp_path / "cache", (8, 4, 2, 1))
    assert len(hub.repo("me/m").commits) == 1 + 4


@pytest.mark.slow
@pytest.mark.parametrize("request_", ["/refs", "/storage/"])
def test_a_signal_while_an_upload_hangs(hub, teacher_folder, tmp_path, request_):
    """What is under way is left behind when the grace period ends, and named."""
    hub.hold = request_
    process = start(
        command(*arguments(teacher_folder, tmp_path / "run", 4, 1, "--push_to_hub", "--hub_model_id=me/m"))
    )
    record = tmp_path / "run" / "chain.json"
    assert wait_for(lambda: record.exists() and '"finished": true' in record.read_text(), process)
    assert wait_for(lambda: any(request_ in path for _, path in hub.requests), process)
    os.kill(process.pid, signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 143 and "not on the Hub: steps-2, steps-1" in output, output


def test_the_token_is_nowhere(hub, teacher_folder, tmp_path, monkeypatch):
    hub.users["hf_SecretSecret"] = hub.users["hf_write"]
    more = ["--push_to_hub", "--hub_model_id=me/m", "--hub_token=hf_SecretSecret", "--report_to=tensorboard"]
    hub.fail("POST", "/commit/", 500)
    argv = [a for a in arguments(teacher_folder, tmp_path / "run", 4, 1, *more) if a != "--report_to=none"]
    monkeypatch.delenv("HF_TOKEN")
    status, output = run(command(*argv))
    assert status == 0, output
    texts = [output.encode(), *hub.bodies, *(path.encode() for _, path in hub.requests)]
    texts += [
        p.read_bytes() for root in (tmp_path, Path(os.environ["HF_HOME"])) for p in root.rglob("*") if p.is_file()
    ]
    assert len(texts) > 30 and not any(b"SecretSecret" in text for text in texts)
    del hub.users["hf_SecretSecret"]


def test_a_publication_that_is_left_in_time(hub, chain):
    hub.add_repo("me/digits")
    hub.fail("POST", "/commit/", 500, times=1000)
    publication = Publication(chain, "me/digits", log=lambda line: None)
    publication.add("steps-4", "the card")
    end = time.monotonic() + 0.2
    with pytest.raises(PublishError, match="steps-4"):
        publication.close(lambda: max(0.0, end - time.monotonic()))


def test_no_path_of_this_machine_is_published(hub, chain):
    assert main(["push", str(chain), "--hub_model_id", "me/digits"]) == 0
    for path, file in hub.repo("me/digits").head.files.items():
        assert b"/tmp" not in file.content and b"/root" not in file.content and b"/home" not in file.content, path


def test_a_push_to_another_repository_after_one_that_failed(hub, chain, tmp_path):
    """Nothing of the first is left over: all students come, in order, and the cards name the second."""
    hub.fail("POST", "/commit/", 403)
    assert main(["push", str(chain), "--hub_model_id", "me/elsewhere"]) == 3
    assert main(["push", str(chain), "--hub_model_id", "me/digits"]) == 0
    assert_complete(hub, chain, "me/digits", tmp_path / "cache")
    assert "me/elsewhere" not in hub.repo("me/digits").head.files["README.md"].content.decode()


def test_a_card_that_a_person_edited_on_the_hub_is_kept(hub, chain):
    hub.add_repo("me/digits", files={"README.md": b"my own words"})
    assert main(["push", str(chain), "--hub_model_id", "me/digits"]) == 0
    files = hub.repo("me/digits").head.files
    assert files["README.1.md"].content == b"my own words" and b"my own words" not in files["README.md"].content
    assert "README.2.md" not in files


def test_a_license_that_the_hub_does_not_know(hub, chain, capsys):
    assert main(["push", str(chain), "--hub_model_id", "me/digits", "--hub_license", "mti"]) == 2
    assert "--hub_license mti" in capsys.readouterr().err
    assert len(hub.repo("me/digits").commits) == 1


def test_both_pipelines_find_the_student(hub, chain, tmp_path):
    assert main(["push", str(chain), "--hub_model_id", "me/digits"]) == 0
    ours = ProgressiveDistillationPipeline.from_pretrained("me/digits", cache_dir=tmp_path / "cache")
    assert ours.num_trained_steps == 1
