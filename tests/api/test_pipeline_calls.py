"""What people do with stock pipelines works with ours; what cannot work is a ValueError with the way out."""

import copy
import pickle
import threading

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, DiffusionPipeline
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from helpers.networks import tiny_unet

from diffusers_progdistill import ProgressiveDistillationPipeline, ProgressiveDistillationScheduler
from diffusers_progdistill.pipelines.export import attach_metadata


def make(steps=2, metadata=None, scheduler=None, **unet):
    scheduler = attach_metadata(scheduler or ProgressiveDistillationScheduler(), **(metadata or {}))
    if steps is not None:
        scheduler = attach_metadata(scheduler, num_inference_steps=steps)
    pipeline = ProgressiveDistillationPipeline(tiny_unet(widths=(8,), **unet), scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


NAMED = {"num_classes": 3, "class_names": ["cat", "dog", "3"], "null_label": 3}


def with_classes(**options):
    return make(metadata=NAMED, num_class_embeds=4, **options)


def images(pipeline, count=2, **options):
    options = {"generator": torch.Generator().manual_seed(0), "output_type": "np", **options}
    return pipeline(count, **options).images


# Schedulers.


SAMPLERS = [
    *("DDIMScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "PNDMScheduler"),
    *("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler"),
    *("DEISMultistepScheduler", "DPMSolverSinglestepScheduler", "KDPM2DiscreteScheduler"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SAMPLERS)
def test_another_scheduler_can_be_set(name):
    """As with a stock pipeline: set, sampled, saved, and set back."""
    pipeline = make(scheduler=ProgressiveDistillationScheduler.from_config(DDPMScheduler().config))
    before, own = images(pipeline), pipeline.scheduler
    pipeline.scheduler = getattr(diffusers, name).from_config(pipeline.scheduler.config)
    made = images(pipeline, num_inference_steps=4)
    assert made.shape == (2, 8, 8, 1) and np.isfinite(made).all()
    assert pipeline.num_trained_steps == 2
    pipeline.scheduler = own
    np.testing.assert_array_equal(images(pipeline), before)


def test_a_set_scheduler_samples_as_in_a_stock_pipeline():
    pipeline = make(scheduler=ProgressiveDistillationScheduler.from_config(DDPMScheduler().config))
    pipeline.scheduler = DDPMScheduler()
    stock = DDPMPipeline(pipeline.unet, DDPMScheduler())
    stock.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 3, "output_type": "np"}
    theirs = stock(batch_size=2, generator=torch.Generator().manual_seed(0), **options).images
    np.testing.assert_allclose(images(pipeline, **options), theirs, atol=1e-5)


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "EulerDiscreteScheduler", "DDIMScheduler"])
def test_a_pipeline_with_a_set_scheduler_is_saved_and_copied(name, tmp_path):
    pipeline = make(steps=4)
    before = images(pipeline)
    pipeline.scheduler = getattr(diffusers, name).from_config(pipeline.scheduler.config)
    pipeline.save_pretrained(tmp_path)
    again = DiffusionPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    np.testing.assert_allclose(images(again, num_inference_steps=4), before, atol=1e-4)
    assert type(copy.deepcopy(pipeline).scheduler).__name__ == name


@pytest.mark.parametrize(
    "options, message",
    [
        ({"eta": 0.5}, "eta"),
        ({"use_clipped_model_output": True}, "use_clipped_model_output"),
    ],
)
def test_options_that_a_scheduler_does_not_have(options, message):
    pipeline = make()
    pipeline.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    with pytest.raises(ValueError, match=message):
        images(pipeline, **options)


def test_two_heads_need_our_scheduler():
    pipeline = make(out_channels=2, scheduler=ProgressiveDistillationScheduler(prediction_type="sample_epsilon"))
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    with pytest.raises(ValueError, match="ProgressiveDistillationScheduler.from_config"):
        images(pipeline)


# Callbacks.


class Dimmer(PipelineCallback):
    tensor_inputs = ["latents"]

    def callback_fn(self, pipeline, step_index, timestep, callback_kwargs):
        assert 0 <= step_index < pipeline.num_timesteps
        callback_kwargs["latents"] = callback_kwargs["latents"] * 0
        return callback_kwargs


class Watcher(Dimmer):
    def callback_fn(self, pipeline, step_index, timestep, callback_kwargs):
        return None


@pytest.mark.parametrize(
    "callback",
    [
        lambda *args: None,
        lambda pipe, index, timestep, kwargs: {},
        lambda pipe, index, timestep, kwargs: kwargs,
        lambda pipe, index, timestep, kwargs: {"other": 1},
        Watcher(),
    ],
)
def test_callbacks_that_replace_nothing(callback):
    np.testing.assert_array_equal(images(make(), callback_on_step_end=callback), images(make()))


@pytest.mark.parametrize(
    "callback",
    [
        Dimmer(),
        MultiPipelineCallbacks([Dimmer(), Dimmer()]),
        lambda pipe, index, timestep, kwargs: {"latents": kwargs["latents"] * 0},
    ],
)
def test_callbacks_that_replace_the_sample(callback):
    np.testing.assert_allclose(images(make(), callback_on_step_end=callback), 0.5)


class Guided(Dimmer):
    tensor_inputs = ["prompt_embeds"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"callback_on_step_end": lambda *args: "latents"}, "must return a dictionary"),
        ({"callback_on_step_end": lambda *args: torch.zeros(1)}, "must return a dictionary"),
        ({"callback_on_step_end": lambda *args: {"latents": torch.zeros(1)}}, "of shape"),
        ({"callback_on_step_end": lambda *args: {"latents": None}}, "of shape"),
        ({"callback_on_step_end": Guided()}, "prompt_embeds"),
        ({"callback_on_step_end_tensor_inputs": ["latents", "nope"]}, "nope"),
        ({"callback_on_step_end_tensor_inputs": "latents"}, "must be a list"),
    ],
)
def test_callbacks_that_cannot_work(options, message):
    with pytest.raises(ValueError, match=message):
        images(make(), **options)


# Arguments.


@pytest.mark.parametrize(
    "labels",
    [
        *(1, "dog", [1, 1], ["dog", "dog"], ("dog", 1), np.array([1, 1]), np.int64(1), np.array(["dog", "dog"])),
        *(
            torch.tensor(1),
            torch.tensor([1, 1], dtype=torch.uint8),
            torch.tensor([[1], [1]]),
            range(1, 2),
            ["dog", "1"],
        ),
        [torch.tensor(1), torch.tensor(1)],
    ],
)
def test_class_labels_in_every_form(labels):
    pipeline = with_classes()
    np.testing.assert_array_equal(images(pipeline, class_labels=labels), images(pipeline, class_labels=[1, 1]))


def test_a_number_is_a_label_and_a_text_a_name_first():
    """The class called 3 has the label 2; beside a name, 0 is a label still."""
    pipeline = with_classes()
    assert pipeline.prepare_class_labels(["3", 0, "dog"], 3, "cpu").tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    "labels",
    [
        *(
            1.0,
            [0.5, 1],
            "bird",
            ["cat", "bird"],
            [None, 1],
            [],
            [0, 1, 2],
            7,
            -1,
            [0, 9],
            True,
            {0: 1},
            {1},
            object(),
        ),
        *(np.array([0.5, 1]), torch.tensor([0.0, 1.0]), torch.zeros(2, 2, dtype=torch.long), [[0], [1, 2]], 10**30),
        *(b"cat", "", torch.Generator(), float("nan")),
    ],
)
def test_class_labels_that_are_none(labels):
    with pytest.raises(ValueError, match="class"):
        images(with_classes(), class_labels=labels)


@pytest.mark.parametrize(
    "options, message",
    [
        *(
            ({"num_inference_steps": n}, "num_inference_steps")
            for n in (0, -1, 2.0, 2.5, "2", True, [2], float("nan"))
        ),
        *(({"count": n}, "batch_size") for n in (0, -1, 1.5, "1", None, True, [1])),
        *(({"generator": g}, "generator") for g in (3, "0", [torch.Generator()], [1, 2], (torch.Generator(),), [])),
        *(({"guidance_scale": g}, "guidance_scale") for g in (2.0, "1", None, float("nan"))),
        *(({"output_type": t}, "pil, np, pt, latent") for t in ("jpg", None, 3, "PIL")),
        ({"latents": torch.zeros(2, 1, 4, 4)}, "shape"),
        ({"latents": torch.zeros(1, 1, 8, 8)}, "shape"),
        ({"latents": np.zeros((2, 1, 8, 8))}, "tensor"),
        ({"latents": torch.zeros(2, 1, 8, 8, dtype=torch.long)}, "floating point"),
        ({"class_labels": 1}, "no classes"),
    ],
)
def test_arguments_that_cannot_work(options, message):
    with pytest.raises(ValueError, match=message):
        images(make(), **options)


def test_a_generator_in_the_place_where_stock_pipelines_take_it():
    with pytest.raises(ValueError, match="class"):
        with_classes()(1, torch.Generator().manual_seed(0))


def test_positional_and_defaults():
    pipeline = make()
    assert len(pipeline(1).images) == len(pipeline().images) == 1
    assert isinstance(pipeline(2, return_dict=False), tuple)
    assert images(pipeline, np.int64(2), num_inference_steps=np.int64(2)).shape == (2, 8, 8, 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_latents_of_another_precision(dtype):
    noise = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    pipeline = make()
    np.testing.assert_allclose(images(pipeline, latents=noise), images(pipeline, latents=noise.float()), atol=1e-6)


@pytest.mark.parametrize("kind", [list, tuple])
def test_one_generator_an_image(kind):
    generators = [lambda: kind(torch.Generator().manual_seed(k) for k in range(2))] * 2
    a, b = (images(make(), generator=one(), eta=0.5) for one in generators)
    np.testing.assert_array_equal(a, b)
    assert np.abs(a[0] - a[1]).max() > 0


# The pipeline as an object.


@pytest.mark.parametrize(
    "change",
    [
        copy.deepcopy,
        lambda p: ProgressiveDistillationPipeline(**p.components),
        lambda p: ProgressiveDistillationPipeline.from_pipe(DDIMPipeline(**p.components)),
        lambda p: p.to("cpu", torch.float32),
    ],
)
def test_copies_make_the_same_images(change):
    pipeline = make()
    before, changed = images(pipeline), change(pipeline)
    changed.set_progress_bar_config(disable=True)
    np.testing.assert_array_equal(images(changed, num_inference_steps=2), before)


@pytest.mark.parametrize("part", ["unet", "scheduler"])
def test_configs_are_pickled(part):
    config = getattr(make(), part).config
    assert dict(pickle.loads(pickle.dumps(dict(config)))) == dict(config)


@pytest.mark.parametrize("variant", [None, "fp16", "ema"])
@pytest.mark.parametrize("safe", [True, False])
def test_save_and_load_with_a_variant(variant, safe, tmp_path):
    pipeline = make()
    pipeline.save_pretrained(tmp_path, variant=variant, safe_serialization=safe)
    again = ProgressiveDistillationPipeline.from_pretrained(tmp_path, variant=variant)
    again.set_progress_bar_config(disable=True)
    np.testing.assert_array_equal(images(again), images(pipeline))


def test_push_to_hub_and_back(hub, tmp_path):
    pipeline = make()
    pipeline.push_to_hub("me/pushed")
    pipeline.save_pretrained(tmp_path / "named", push_to_hub=True, repo_id="me/saved")
    for name in ("me/pushed", "me/saved"):
        again = ProgressiveDistillationPipeline.from_pretrained(name, cache_dir=tmp_path / "cache")
        again.set_progress_bar_config(disable=True)
        np.testing.assert_array_equal(images(again), images(pipeline))


@pytest.mark.parametrize("push", ["push_to_hub", "save_pretrained"])
def test_a_push_keeps_the_readme(hub, push, tmp_path):
    text = "---\nlicense: mit\n---\n\n# My model\n"
    hub.add_repo("me/pushed", files={"README.md": text.encode()})
    if push == "push_to_hub":
        make().push_to_hub("me/pushed", commit_message="mine")
    else:
        make().save_pretrained(tmp_path, push_to_hub=True, repo_id="me/pushed", commit_message="mine")
    readme = hub.repo("me/pushed").head.files["README.md"].content.decode()
    assert "license: mit" in readme and "# My model" in readme


def test_threads_share_a_pipeline():
    pipeline, made = make(), {}
    expected = images(pipeline)
    threads = [threading.Thread(target=lambda k=k: made.update({k: images(pipeline)})) for k in range(4)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert len(made) == 4
    for one in made.values():
        np.testing.assert_array_equal(one, expected)
