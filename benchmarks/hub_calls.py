"""Milliseconds that the training thread spends inside the publisher for each student, with a Hub that does not answer.

python benchmarks/hub_calls.py OUTPUT_DIR   (of a finished chain; it is copied, and the test suite's Hub is used)
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "hub"))
from hub_server import Hub  # noqa: E402


def main():
    with Hub() as hub, tempfile.TemporaryDirectory() as temporary:
        os.environ.update(hub.environment(temporary))
        from diffusers_progdistill.hub.folder import Publication

        folder = Path(shutil.copytree(sys.argv[1], Path(temporary, "chain")))
        content = json.loads((folder / "chain.json").read_text())
        hub.add_repo("me/chain")
        hub.gate.clear()
        publication = Publication(folder, content, "me/chain", say=lambda line: None)
        for stage in content["stages"]:
            before = publication.seconds_in_calls
            publication.add(stage["name"], stage["num_inference_steps"])
            print(f"{stage['name']}: {1000 * (publication.seconds_in_calls - before):.1f} ms")
        hub.gate.set()
        publication.close()


if __name__ == "__main__":
    main()
