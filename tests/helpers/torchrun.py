"""`torchrun --standalone` whose processes are forked: `python -m helpers.torchrun 2 distill ...`"""

import sys
import uuid

from torch.distributed.launcher.api import LaunchConfig, elastic_launch


def work(argv: list[str]):
    from diffusers_progdistill.commands.main import main

    sys.exit(main(argv))


if __name__ == "__main__":
    options = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "run_id": str(uuid.uuid4())}
    count = {"min_nodes": 1, "max_nodes": 1, "nproc_per_node": int(sys.argv[1]), "max_restarts": 0}
    elastic_launch(LaunchConfig(**count, **options, start_method="fork"), work)(sys.argv[2:])
