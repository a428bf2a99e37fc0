"""A checkpoint brings back every network, average and optimizer by its name, with whatever else a stage trains."""

import copy

import pytest
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel

from diffusers_progdistill.errors import InputError
from diffusers_progdistill.training.checkpointing import Checkpoints


class Training:
    """A network, another one with an optimizer of another kind, and a frozen one that follows the first."""

    def __init__(self, folder, widths=(3, 2, 4), wanted="latest"):
        a, b, c = widths
        self.modules = {
            "model": torch.nn.Linear(a, b),
            "judge": torch.nn.Linear(b, c),
            "target": torch.nn.Linear(a, b),
        }
        self.optimizers = {
            "model": torch.optim.AdamW(self.modules["model"].parameters(), 0.1, fused=True),
            "judge": torch.optim.SGD(self.modules["judge"].parameters(), 0.1, momentum=0.9),
        }
        parameters = {name: list(self.modules[name].parameters()) for name in ("model", "judge")}
        self.averages = {name: EMAModel(own, decay=0.5) for name, own in parameters.items()}
        self.checkpoints = Checkpoints(Accelerator(cpu=True), folder, "steps-4", wanted=wanted)
        self.checkpoints.attach(self.modules, self.optimizers, self.averages)

    def update(self):
        model, judge, target = self.modules.values()
        images = torch.ones(2, 3)
        (judge(model(images)).square().mean() + (model(images) - target(images)).square().mean()).backward()
        for name, optimizer in self.optimizers.items():
            optimizer.step()
            optimizer.zero_grad()
            self.averages[name].step(self.modules[name].parameters())
        with torch.no_grad():
            for own, other in zip(target.parameters(), model.parameters()):
                own.lerp_(other, 0.1)

    def values(self):
        weights = [w for module in self.modules.values() for w in module.state_dict().values()]
        averages = [w for average in self.averages.values() for w in average.shadow_params]
        moments = [v for o in self.optimizers.values() for s in o.state.values() for _, v in sorted(s.items())]
        return copy.deepcopy([*weights, *averages, *moments])


def equal(some, others):
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def test_all_goes_on_as_if_nothing_had_been(tmp_path):
    whole, resumed = Training(tmp_path), Training(tmp_path)
    for _ in range(3):
        whole.update()
    whole.checkpoints.save(3, {"seconds": 1.5})
    state = resumed.checkpoints.load()
    assert (state["update"], state["seconds"]) == (3, 1.5) and equal(whole.values(), resumed.values())
    for training in (whole, resumed):
        training.update()
    assert equal(whole.values(), resumed.values())


@pytest.mark.parametrize("widths", [(3, 2, 5), (4, 2, 4)])
def test_one_that_does_not_fit_changes_nothing(widths, tmp_path, capsys):
    whole, other = Training(tmp_path), Training(tmp_path, widths)
    whole.update()
    whole.checkpoints.save(1, {})
    before = other.values()
    assert other.checkpoints.load() is None and equal(before, other.values())
    assert "steps-4-00000001 is not used" in capsys.readouterr().out


def test_networks_that_it_does_not_hold_refuse_it(tmp_path):
    whole, more = Training(tmp_path), Training(tmp_path, wanted="steps-4-00000001")
    whole.update()
    whole.checkpoints.save(1, {})
    more.checkpoints.attach({**more.modules, "another": torch.nn.Linear(1, 1)}, more.optimizers, more.averages)
    with pytest.raises(InputError, match="another.safetensors is missing"):
        more.checkpoints.load()


@pytest.mark.parametrize("limit, kept", [(None, 3), (2, 2)])
def test_how_many_are_kept(limit, kept, tmp_path):
    training = Training(tmp_path)
    training.checkpoints.total_limit = limit
    for update in range(1, 4):
        training.checkpoints.save(update, {})
    assert [p.name for p in training.checkpoints.paths()] == [f"steps-4-0000000{k}" for k in (3, 2, 1)][:kept]
    training.checkpoints.clear()
    assert not training.checkpoints.folder.exists()
