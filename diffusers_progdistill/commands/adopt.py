from ..training.config import AdoptionConfig
from .parsing import parse


DESCRIPTION = """Make a model of this package's schedule (cosine, zero terminal SNR) out of a diffusers model of
another one: epsilon, x or v, any betas. It can be sampled in any number of steps and distilled. `progdistill distill`
does this by itself where it is needed; alone it gives a v-prediction model of the same quality. With --guidance_scale
the model makes guided samples with one network evaluation a step."""


def main(argv: list[str]) -> int:
    config = parse(AdoptionConfig, argv, "progdistill adopt", DESCRIPTION)
    config.check()
    from ..training.adopt import adopt

    adopt(config)
    return 0
