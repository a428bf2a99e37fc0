"""
Python processes without the seconds that imports take: a server that has imported torch, diffusers and this package
once, and forks a child for every command.

[`PythonServer.start`] is what `subprocess.Popen([sys.executable, ...])` would be: a child has its own arguments,
environment, folder, pipe and process group, it starts with nothing but imports done, and it can be waited for,
signalled and killed. What a command makes in itself (random numbers, states of accelerate, threads) ends with it.
"""

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path


TESTS = Path(__file__).parents[1]
# What commands import sooner or later.
IMPORTED = (
    *("torch.optim.lr_scheduler", "sklearn.datasets", "datasets", "matplotlib.pyplot", "diffusers", "accelerate"),
    *("diffusers.pipelines.ddim", "diffusers.pipelines.ddpm", "diffusers.training_utils", "diffusers.optimization"),
    *("diffusers_progdistill.training.chain", "diffusers_progdistill.training.teacher", "torch.distributed.run"),
    *("diffusers_progdistill.training.convert", "diffusers_progdistill.hub.folder", "torch.utils.data"),
    *("diffusers_progdistill.commands.main", "diffusers_progdistill.commands.distill", "torch.nn.parallel"),
    *("diffusers_progdistill.commands.train_teacher", "diffusers_progdistill.commands.evaluate"),
)


NO_STREAMS = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}


class ForkedProcess:
    """
    A command that the server was asked for, with the part of `subprocess.Popen` that tests use: `pid`, `poll`, `wait`,
    `communicate`, `returncode`, and `stdout`, which holds what went to both streams.
    """

    def __init__(self, words: list[str], status: socket.socket, output: int):
        self.args, self.status, self.returncode = words, status, None
        self.stdout = os.fdopen(output, errors="replace")
        self.buffer = b""
        self.pid = int(self._line(None))

    def _line(self, timeout):
        while b"\n" not in self.buffer:
            if not select.select([self.status], [], [], timeout)[0]:
                return None
            received = self.status.recv(100)
            if not received:
                raise RuntimeError(f"the server of Python processes has ended: {self.args}")
            self.buffer += received
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            line = self._line(timeout)
            if line is None:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = int(line)
            self.status.close()
        return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """What was printed until nobody can print any more: the command and all that it has started have ended."""
        end, parts = None if timeout is None else time.monotonic() + timeout, []
        while True:
            left = None if end is None else max(end - time.monotonic(), 0)
            if not select.select([self.stdout], [], [], left)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout, b"".join(parts))
            part = os.read(self.stdout.fileno(), 1 << 16)
            if not part:
                break
            parts.append(part)
        self.stdout.close()
        self.wait(None if end is None else max(end - time.monotonic(), 0))
        return b"".join(parts).decode(errors="replace"), None


class PythonServer:
    """The server's end in this process; it begins with the first command."""

    def __init__(self):
        self.process, self.socket, self.started = None, None, []

    def start(self, words: list[str], environment: dict[str, str], folder: str | Path = ".") -> ForkedProcess:
        """
        Start `python ...`: `words` are what comes after the interpreter (`-m module`, `-c code` or a script, and its
        arguments).
        """
        if self.process is None:
            self._begin()
        status, theirs = socket.socketpair()
        output, writing = os.pipe()
        request = {"words": [str(w) for w in words], "environment": environment, "folder": os.path.abspath(folder)}
        content = json.dumps(request).encode()
        socket.send_fds(self.socket, [b"%016d" % len(content)], [theirs.fileno(), writing])
        self.socket.sendall(content)
        theirs.close(), os.close(writing)
        process = ForkedProcess(words, status, output)
        self.started.append(process)
        return process

    def _begin(self):
        self.socket, theirs = socket.socketpair()
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        variables["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
        words = [sys.executable, "-m", "helpers.python_server", str(theirs.fileno())]
        self.process = subprocess.Popen(
            words, env=variables, pass_fds=[theirs.fileno()], start_new_session=True, **NO_STREAMS
        )
        theirs.close()
        atexit.register(self.close)

    def close(self):
        """End what a failed test has left, and the server."""
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        if self.process is not None:
            self.socket.close()
            self.process.wait()
            self.process = None


SERVER = PythonServer()


# In the server.


def receive(connection: socket.socket) -> tuple[dict, list[int]] | None:
    head, fds, _, _ = socket.recv_fds(connection, 16, 2)
    if not head:
        return None
    length, content = int(head), b""
    while len(content) < length:
        content += connection.recv(length - len(content))
    return json.loads(content), fds


class Children:
    """The commands at work; who asked for one is told its number, and how it has ended."""

    def __init__(self):
        self.status: dict[int, int] = {}
        # An end is a byte in a pipe, so that one `select` waits for ends and requests.
        self.ended, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def fork(self, status: int) -> bool:
        """Whether this is the child."""
        pid = os.fork()
        # By both, so that the group is there whoever comes first.
        os.setpgid(pid, pid)
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for fd in (self.ended, status, *self.status.values()):
                os.close(fd)
            return True
        self.status[pid] = status
        os.write(status, b"%d\n" % pid)
        return False

    def tell_ends(self):
        os.read(self.ended, 1 << 10)
        for pid in list(self.status):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                connection = self.status.pop(pid)
                try:
                    os.write(connection, b"%d\n" % os.waitstatus_to_exitcode(status))
                except BrokenPipeError:
                    pass  # nobody waits for it
                os.close(connection)


def serve(connection: socket.socket) -> list[str] | None:
    """Answer requests until there are no more; returns the words of the command in each child."""
    children = Children()
    while True:
        ready = select.select([connection, children.ended], [], [])[0]
        if children.ended in ready:
            children.tell_ends()
        if connection not in ready:
            continue
        request = receive(connection)
        if request is None:
            return None
        content, (status, output) = request
        if not children.fork(status):
            os.close(output)
            continue
        connection.close()
        os.dup2(output, 1), os.dup2(output, 2), os.close(output)
        os.environ.clear()
        os.environ.update(content["environment"])
        os.chdir(content["folder"])
        return content["words"]


def run(words: list[str]):
    """What the interpreter does with its arguments."""
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
    elif words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(words)
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")


def import_everything():
    import importlib
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in IMPORTED:
            importlib.import_module(name)
    # What has run once in a process is not imported again by runpy, which would warn.
    sys.modules.pop("diffusers_progdistill.commands.main", None)
    sys.modules.pop("torch.distributed.run", None)


def end(status: int | str | None):
    """End as the interpreter does, but for taking down all that was imported."""
    if isinstance(status, str):
        print(status, file=sys.stderr)
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(int(status is not None) if not isinstance(status, int) else status & 0xFF)


if __name__ == "__main__":
    import_everything()
    # The collector leaves what was imported alone: memory that nobody writes to is not copied.
    gc.freeze()
    command = serve(socket.socket(fileno=int(sys.argv[1])))
    if command is not None:
        try:
            run(command)
            end(0)
        except SystemExit as leaving:
            end(leaving.code)
