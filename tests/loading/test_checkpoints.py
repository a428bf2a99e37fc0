"""What checkpoints bring with them: components, names and values of weights, keys of older releases."""

import json

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler
from helpers.networks import tiny_unet
from safetensors.torch import load_file, save_file

from diffusers_progdistill.errors import InputError
from diffusers_progdistill.families import open_model
from diffusers_progdistill.pipelines.loading import ModelSource


WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def small(**options):
    return tiny_unet(channels=options.pop("channels", 3), widths=(8,), **options)


@pytest.fixture
def stock(tmp_path):
    """A stock teacher of 8x8 pixels in colour, in a folder that may be changed."""
    DDPMPipeline(small(), DDPMScheduler()).save_pretrained(tmp_path / "stock")
    return tmp_path / "stock"


def edit(path, change):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content) or content))


def rename(folder, change):
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)


def load(folder, **options):
    return open_model(ModelSource(str(folder), "--pretrained_teacher_model", **options)).pipeline


def refusal(folder, **options):
    """The one line that refuses a model."""
    with pytest.raises(InputError) as error:
        load(folder, **options)
    message = str(error.value)
    assert "\n" not in message and len(message) < 400
    return message


def same_weights(model, other):
    a, b = (m.unet.state_dict() for m in (model, other))
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# Components.


@pytest.mark.parametrize(
    "name, entry",
    [
        ("vqvae", ["diffusers", "VQModel"]),
        ("vae", ["diffusers", "AutoencoderKL"]),
        ("movq", ["diffusers", "VQModel"]),
        ("text_encoder", ["transformers", "CLIPTextModel"]),
        ("safety_checker", ["stable_diffusion", "StableDiffusionSafetyChecker"]),
        ("mel", ["audio_diffusion", "Mel"]),
        ("low_res_scheduler", ["diffusers", "DDPMScheduler"]),
    ],
)
def test_other_components_are_refused_by_name(stock, name, entry):
    edit(stock / "model_index.json", lambda index: index.update({name: entry}))
    message = refusal(stock)
    assert name in message and entry[1] in message


def test_null_components_are_none(stock):
    before = load(stock)
    edit(stock / "model_index.json", lambda index: index.update(vqvae=[None, None], requires_safety_checker=False))
    assert same_weights(load(stock), before)


@pytest.mark.parametrize(
    "change, named",
    [
        ({"_class_name": "LDMPipeline", "vqvae": ["diffusers", "VQModel"]}, "vqvae"),
        ({"_class_name": "DanceDiffusionPipeline"}, "DanceDiffusionPipeline"),
        ({"_class_name": "StableDiffusionPipeline"}, "StableDiffusionPipeline"),
        ({"unet": ["diffusers", "UNet2DConditionModel"]}, "UNet2DConditionModel"),
        ({"unet": ["diffusers", "UNet1DModel"]}, "UNet1DModel"),
        ({"unet": ["somewhere", "MyUNet"]}, "MyUNet"),
        ({"unet": [None, None]}, "unet"),
        ({"scheduler": ["diffusers", "ScoreSdeVeScheduler"]}, "schedule"),
    ],
)
def test_other_pipelines_and_networks_are_refused_by_name(stock, change, named):
    edit(stock / "model_index.json", lambda index: index.update(change))
    if "scheduler" in change:
        edit(
            stock / "scheduler/scheduler_config.json", lambda config: config.update(_class_name=change["scheduler"][1])
        )
    assert named in refusal(stock)


@pytest.mark.parametrize("name", ["MyDDPMPipeline", "DDPMConditionalPipeline"])
def test_a_class_that_diffusers_does_not_know_is_told(stock, name, caplog):
    edit(stock / "model_index.json", lambda index: index.update(_class_name=name))
    load(stock)
    assert [name in record.getMessage() for record in caplog.records] == [True]


# Weights.


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "unet.", "model.", "module._orig_mod.", "ema.unet."])
def test_a_prefix_of_all_names_is_taken_off(stock, prefix, caplog):
    before = load(stock)
    rename(stock, lambda state: {prefix + k: v for k, v in state.items()})
    assert same_weights(load(stock), before)
    assert prefix.split(".")[0] in caplog.text


@pytest.mark.parametrize("part", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_wrappers_within_names_are_taken_off(stock, part):
    before = load(stock)
    rename(stock, lambda state: {k.replace("down_blocks.0.", f"down_blocks.0.{part}."): v for k, v in state.items()})
    assert same_weights(load(stock), before)


def without(name):
    return lambda state: {k: v for k, v in state.items() if k != name}


def replaced(name, make):
    return lambda state: {**state, name: make(state[name])}


@pytest.mark.parametrize(
    "change, named",
    [
        (without("conv_out.bias"), "conv_out.bias is missing"),
        (lambda state: {k: v for k, v in state.items() if "mid_block" not in k}, "more are missing"),
        (lambda state: {**state, "conv_new.weight": torch.zeros(1)}, "conv_new.weight is not of this network"),
        (replaced("conv_out.bias", lambda b: torch.cat([b, b])), "conv_out.bias is 6 in the file and 3 in the config"),
        (replaced("conv_in.bias", lambda b: b * float("nan")), "conv_in.bias is not finite"),
        (replaced("conv_in.weight", lambda w: w / 0), "conv_in.weight is not finite"),
        (replaced("conv_in.weight", lambda w: w.to(torch.int8)), "int8"),
        (lambda state: {**state, "_orig_mod.conv_in.bias": state["conv_in.bias"] + 1}, "twice"),
        (lambda state: {}, "missing"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(stock, change, named):
    rename(stock, change)
    assert named in refusal(stock)


def test_old_checkpoints_with_all_files_in_the_root(tmp_path):
    """As of 2022: no folders, `.bin`, query, key, value and proj_attn."""
    new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    unet = small()
    unet = type(unet)(**{**unet.config, "down_block_types": ["AttnDownBlock2D"], "add_attention": True})
    pipeline = DDPMPipeline(unet, DDPMScheduler())
    pipeline.save_pretrained(tmp_path / "new")
    old, state = tmp_path / "old", {}
    old.mkdir()
    for name, tensor in unet.state_dict().items():
        for there, then in new.items():
            name = name.replace(there, then)
        state[name] = tensor
    assert any("proj_attn" in name for name in state)
    torch.save(state, old / "diffusion_pytorch_model.bin")
    for source in ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json"):
        (old / source.split("/")[-1]).write_text((tmp_path / "new" / source).read_text())
    assert same_weights(load(old), load(tmp_path / "new"))


@pytest.mark.parametrize(
    "variants, given, said",
    [
        (["fp16"], None, "--variant fp16"),
        (["fp16", "bf16"], None, "--variant bf16 or --variant fp16"),
        ([None], "fp16", "leave --variant out"),
        (["ema"], "fp16", "--variant ema"),
        ([], None, "no weights"),
    ],
)
def test_missing_variants_name_what_is_there(stock, variants, given, said):
    (stock / WEIGHTS).unlink()
    for variant in variants:
        small().save_pretrained(stock / "unet", variant=variant)
    assert said in refusal(stock, variant=given)


def test_half_precision_is_loaded_in_single(tmp_path):
    DDPMPipeline(small().half(), DDPMScheduler()).save_pretrained(tmp_path / "plain")
    DDPMPipeline(small().half(), DDPMScheduler()).save_pretrained(tmp_path / "variant", variant="fp16")
    plain, variant = load(tmp_path / "plain"), load(tmp_path / "variant", variant="fp16")
    assert plain.unet.dtype == torch.float32 and same_weights(plain, variant)


@pytest.mark.parametrize("kind", ["shards", "bin"])
def test_other_files_hold_the_same_weights(stock, kind):
    before, unet = load(stock), small()
    (stock / WEIGHTS).unlink()
    unet.save_pretrained(
        stock / "unet", **({"max_shard_size": "4KB"} if kind == "shards" else {"safe_serialization": False})
    )
    assert same_weights(load(stock), before)


@pytest.mark.parametrize(
    "content, said",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "git lfs pull"),
        (b"", "cannot be read"),
        (b"\x10" * 100, "cannot be read"),
    ],
)
def test_files_that_hold_no_weights(stock, content, said):
    (stock / WEIGHTS).write_bytes(content)
    assert said in refusal(stock)


def test_a_training_checkpoint_is_no_table_of_tensors(stock):
    (stock / WEIGHTS).unlink()
    torch.save({"epoch": 3, "state_dict": small().state_dict()}, stock / "unet/diffusion_pytorch_model.bin")
    assert "epoch, state_dict" in refusal(stock)


# Configs.


@pytest.mark.parametrize("name", ["unet", "scheduler"])
@pytest.mark.parametrize("keys", [{"brand_new": 1}, {"a_key": None, "another": [1]}])
def test_unknown_keys_are_told_in_one_line(stock, name, keys, caplog):
    before, path = load(stock), stock / name / ("config.json" if name == "unet" else "scheduler_config.json")
    edit(path, lambda config: config.update(keys))
    assert same_weights(load(stock), before)
    assert len(caplog.records) == 1 and all(key in caplog.text for key in keys)


@pytest.mark.parametrize("old, kind", [(False, "sample"), (True, "epsilon"), (None, "epsilon")])
@pytest.mark.parametrize("scheduler", [DDPMScheduler, DDIMScheduler])
def test_predict_epsilon_is_a_prediction_type(stock, scheduler, old, kind):
    scheduler().save_pretrained(stock / "scheduler")

    def change(config):
        config.pop("prediction_type")
        if old is not None:
            config["predict_epsilon"] = old

    edit(stock / "scheduler/scheduler_config.json", change)
    edit(stock / "model_index.json", lambda index: index.update(scheduler=["diffusers", scheduler.__name__]))
    assert load(stock).scheduler.config.prediction_type == kind
    # The same for who loads a stock pipeline and converts it.
    live = scheduler.from_pretrained(stock / "scheduler")
    from diffusers_progdistill import ProgressiveDistillationScheduler

    assert ProgressiveDistillationScheduler.from_config(live.config).config.prediction_type == kind


@pytest.mark.parametrize(
    "config, said",
    [
        ({"predict_epsilon": False, "prediction_type": "epsilon"}, "contradicts"),
        ({"predict_epsilon": True, "prediction_type": "v_prediction"}, "contradicts"),
        ({"prediction_type": "flow_prediction"}, "flow"),
        ({"prediction_type": "noise"}, "prediction_type"),
        ({"snr_shift_scale": 3.0}, "snr_shift_scale"),
        ({"timestep_values": [1, 2]}, "timestep_values"),
        ({"trained_betas": [0.1, 0.2]}, "`trained_betas` are 2"),
        ({"trained_betas": "0.1"}, "trained_betas"),
        ({"predict_epsilon": "false"}, "predict_epsilon"),
        ({"beta_end": 2.0}, "must be numbers in [0, 1]"),
        ({"beta_start": "small"}, "beta_start"),
        ({"num_train_timesteps": 0}, "num_train_timesteps"),
        ({"num_train_timesteps": "1000"}, "num_train_timesteps"),
        ({"_progdistill": {"num_inference_steps": "4"}}, "_progdistill"),
        ({"_progdistill": "students"}, "_progdistill"),
        ({"trained_betas": [float("nan")] * 1000}, "trained_betas"),
        ({"beta_schedule": "magic"}, "magic"),
    ],
)
def test_schedules_that_cannot_be_honoured_are_refused(stock, config, said):
    edit(stock / "scheduler/scheduler_config.json", lambda old: old.update(config))
    assert said in refusal(stock)


@pytest.mark.parametrize(
    "options",
    [
        {"beta_schedule": "scaled_linear"},
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
        {"trained_betas": [0.01] * 10, "num_train_timesteps": 10},
        {"variance_type": "learned_range"},
    ],
)
def test_schedules_are_honoured(stock, options):
    own = DDPMScheduler(**options)
    own.save_pretrained(stock / "scheduler")
    torch.testing.assert_close(load(stock).scheduler.alphas_cumprod, own.alphas_cumprod, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        {"block_out_channels": [8, 16]},
        {"down_block_types": ["Foo"]},
        {"in_channels": None},
        {"act_fn": "foo"},
        {"time_embedding_type": None},
        {"quantization_config": {"load_in_8bit": True}},
        {"_class_name": "UNet2DConditionModel"},
    ],
)
def test_configs_of_no_network_are_refused(stock, config):
    edit(stock / "unet/config.json", lambda old: old.update(config))
    refusal(stock)


@pytest.mark.parametrize("size", [0, -8, 8.5, "8", [8, 8, 8], None])
def test_sizes_of_no_image_are_a_value_error(size):
    from diffusers_progdistill import ProgressiveDistillationPipeline, ProgressiveDistillationScheduler

    unet = small()
    unet.register_to_config(sample_size=size)
    with pytest.raises(ValueError, match="sample_size"):
        ProgressiveDistillationPipeline(unet, ProgressiveDistillationScheduler())(1, num_inference_steps=1)


def test_the_class_of_the_scheduler_is_that_of_the_index(stock):
    """As diffusers makes it: what a config leaves out has that class's default."""
    (stock / "scheduler/scheduler_config.json").write_text(json.dumps({"_class_name": "MyScheduler"}))
    scheduler = load(stock).scheduler
    torch.testing.assert_close(scheduler.alphas_cumprod, DDPMScheduler().alphas_cumprod, atol=1e-6, rtol=1e-5)
    assert scheduler.config.prediction_type == "epsilon"
