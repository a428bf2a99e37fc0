import re
from pathlib import Path

from setuptools import find_packages, setup


HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "diffusers_progdistill/__init__.py").read_text()).group(1)

DEMO = ["matplotlib>=3.8", "scikit-learn>=1.4", "torchmetrics>=1.4"]
EVAL = ["matplotlib>=3.8", "scipy>=1.11", "torchmetrics>=1.4"]
DEV = ["mypy>=1.15", "pre-commit>=3.5", "ruff>=0.9"]
DOCS = ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.26"]
TEST = sorted({*DEMO, *EVAL, "hypothesis>=6.100", "pytest>=8.0", "pytest-xdist>=3.5"})

setup(
    name="diffusers-progdistill",
    version=VERSION,
    description="Progressive distillation for diffusers: few-step students of many-step pipelines",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    author="The diffusers-progdistill authors",
    python_requires=">=3.11",
    packages=find_packages(include=["diffusers_progdistill", "diffusers_progdistill.*"]),
    package_data={"diffusers_progdistill": ["py.typed"], "diffusers_progdistill.hub": ["*.jinja"]},
    install_requires=[
        "accelerate>=1.10",
        "datasets>=4.0",
        "diffusers>=0.40",
        "filelock>=3.25",
        "huggingface_hub>=1.23",
        "jinja2>=3.1",
        "numpy>=1.26",
        "pillow>=10.0",
        "psutil>=5.9",
        "pyyaml>=6.0",
        "safetensors>=0.4.3",
        "tensorboard>=2.14",
        "torch>=2.6",
        "tqdm>=4.66",
        "transformers>=5.0",
    ],
    extras_require={
        "demo": DEMO,
        "eval": EVAL,
        "test": TEST,
        "docs": DOCS,
        "dev": sorted({*DEV, *DOCS, *TEST}),
    },
    entry_points={"console_scripts": ["progdistill=diffusers_progdistill.commands.main:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
