"""Milliseconds that the training thread spends for the card and the publication of each student, with a Hub that does
not answer.

python benchmarks/hub_calls.py OUTPUT_DIR   (of a finished chain; it is copied, and the test suite's Hub is used)
"""

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.hub_server import Hub  # noqa: E402


def main():
    with Hub() as hub, tempfile.TemporaryDirectory() as temporary:
        os.environ.update(hub.environment(temporary))
        from diffusers_progdistill.hub.folder import Publication, write_card
        from diffusers_progdistill.record import list_students

        folder = Path(shutil.copytree(sys.argv[1], Path(temporary, "chain")))
        content = json.loads((folder / "chain.json").read_text())
        hub.add_repo("me/chain")
        hub.gate.clear()
        publication = Publication(folder, "me/chain", log=lambda line: None)
        for stage in list_students(content):
            began = time.perf_counter()
            publication.add(stage["name"], write_card(folder, content, stage["num_inference_steps"]))
            print(f"{stage['name']}: {1000 * (time.perf_counter() - began):.1f} ms")
        hub.gate.set()
        publication.close()


if __name__ == "__main__":
    main()
