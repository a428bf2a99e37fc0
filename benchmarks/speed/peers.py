"""The updates of other implementations of progressive distillation, from checkouts that the user has.

Both train the network that ours does, with the same batch, one thread, no clipping of x but where they clip always.
What they import beside torch and do not use here is replaced by empty modules. Nothing of theirs is in here.
"""

import functools
import importlib
import sys
import threading
from pathlib import Path
from types import ModuleType

import torch
from networks import make_network
from tqdm.auto import tqdm


def stand_in(name: str, **members):
    """An empty module under a name, unless the real one is there."""
    try:
        importlib.import_module(name)
    except ImportError:
        module = ModuleType(name)
        module.__dict__.update(members)
        sys.modules[name] = module


class Wrapped(torch.nn.Module):
    """A UNet2DModel as the peers call theirs: it returns a tensor."""

    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def forward(self, x, t, **_):
        return self.unet(x, t, return_dict=False)[0]


class OneProcess:
    """What is asked of mpi4py's communicator, of one process."""

    rank = size = None

    def __init__(self):
        self.rank, self.size = 0, 1

    def Get_rank(self):  # noqa: N802 (mpi4py's name)
        return 0

    def Get_size(self):  # noqa: N802
        return 1

    def bcast(self, value, root=0):
        return value

    def gather(self, value, root=0):
        return [value]


def openai_update(checkout: Path, network: str, batch_size: int, images: torch.Tensor):
    """
    `CMTrainLoop.run_step` of openai/consistency_models, with three repairs without which it does not run: its names of
    the teacher's arguments, and the average of the target network, which with decay 1 changes nothing, left out.
    """
    sys.path.insert(0, str(checkout))
    stand_in("piq", LPIPS=lambda **_: None)
    stand_in("torchvision")
    stand_in("torchvision.transforms", RandomCrop=object)
    stand_in("mpi4py", MPI=ModuleType("MPI"))
    sys.modules["mpi4py"].MPI.COMM_WORLD = OneProcess()
    stand_in("blobfile", BlobFile=open, join=lambda *p: "/".join(p), dirname=lambda p: str(Path(p).parent))
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    from cm import dist_util, logger
    from cm.karras_diffusion import KarrasDenoiser
    from cm.script_util import create_ema_and_scales_fn
    from cm.train_util import CMTrainLoop

    # Others that ask whether it is there must not find it.
    del sys.modules["torchvision.transforms"], sys.modules["torchvision"]
    dist_util.dev = lambda: torch.device("cpu")
    logger.configure(dir="/tmp", format_strs=[]) if hasattr(logger, "configure") else None

    class Denoiser(KarrasDenoiser):
        def progdist_losses(self, *args, target_model=None, target_diffusion=None, **kwargs):
            return super().progdist_losses(
                *args, teacher_model=target_model, teacher_diffusion=target_diffusion, **kwargs
            )

    class Loop(CMTrainLoop):
        def _update_target_ema(self):
            pass

    diffusion = Denoiser(loss_norm="l2", weight_schedule="truncated-snr", distillation=True)
    made = [Wrapped(make_network(network)) for _ in range(3)]
    loop = Loop(
        model=made[0], target_model=made[1], teacher_model=made[2], teacher_diffusion=diffusion, diffusion=diffusion,
        training_mode="progdist", ema_scale_fn=create_ema_and_scales_fn("fixed", 0.0, "progdist", 16, 1, 10**9, 10**8),
        total_training_steps=10**9, data=None, batch_size=batch_size, microbatch=-1, lr=1e-4, ema_rate="0.999",
        log_interval=10**9, save_interval=-1, resume_checkpoint="", lr_anneal_steps=10**8,
    )  # fmt: skip
    return lambda: loop.run_step(images, {})


class Stepwise:
    """Somebody else's training loop, in a thread that makes one update a call: it waits for its next batch."""

    def __init__(self, loop, batch, total: int = 10**6):
        self.batch, self.total = batch, total
        self.asked, self.done = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=loop, args=(self,), daemon=True).start()
        self.done.acquire()

    def __len__(self):
        return self.total

    def __iter__(self):
        while True:
            self.done.release()
            self.asked.acquire()
            yield self.batch

    def __call__(self):
        self.asked.release()
        self.done.acquire()


def hramchenko_update(checkout: Path, network: str, batch_size: int, images: torch.Tensor):
    """`DiffusionDistillation.train_student` of Hramchenko/diffusion_distiller, without its progress bar and writer."""
    sys.path.insert(0, str(checkout))
    stand_in("cv2")
    stand_in("matplotlib")
    stand_in("matplotlib.pyplot")
    import train_utils
    from strategies import StrategyLinearLR
    from v_diffusion import GaussianDiffusionDefault, make_beta_schedule

    train_utils.tqdm = functools.partial(tqdm, disable=True)
    made = [Wrapped(make_network(network)) for _ in range(3)]
    teacher = GaussianDiffusionDefault(made[0], make_beta_schedule("cosine", n_timestep=1024))
    student = GaussianDiffusionDefault(made[1], make_beta_schedule("cosine", n_timestep=512), time_scale=2)
    teacher.gamma = 0.3
    trainer = train_utils.DiffusionDistillation(StrategyLinearLR())
    loop = functools.partial(
        trainer.train_student,
        teacher_diffusion=teacher, student_diffusion=student, student_ema=made[2], student_lr=1e-4, device="cpu",
    )  # fmt: skip
    return Stepwise(loop, (images, None))
