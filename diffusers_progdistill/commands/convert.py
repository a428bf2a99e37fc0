from ..training.config import ConversionConfig
from .parsing import parse


DESCRIPTION = """Make a model of this package's schedule (cosine, zero terminal SNR) out of a diffusers model of
another one: epsilon, x or v, any betas. It can be sampled in any number of steps and distilled. `progdistill distill`
does this by itself where it is needed; alone it gives a v-prediction model of the same quality. With --guidance_scale
the model makes guided samples with one network evaluation a step."""


def main(argv: list[str]) -> int:
    config = parse(ConversionConfig, argv, "progdistill convert", DESCRIPTION)
    config.check()
    from ..training.convert import convert

    convert(config)
    return 0
