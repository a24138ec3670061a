"""The command line as real processes that start at once: forked from one that has imported what the jobs import.

Starting Python and importing torch takes five seconds, more than what most tests of the command line then do. A server
imports once and forks for each line; the child is a process of its own, with its folder, environment and streams, that
calls the program's `main()` and can be killed for real.
"""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path


class Launcher:
    """Starts `contraux` lines, until the context ends the server.

    Args:
        scratch: folder of the streams.
        modules: which the server imports first.
    """

    def __init__(self, scratch: Path, *modules: str) -> None:
        self.scratch, self.count = scratch, 0
        self.server = subprocess.Popen(
            [sys.executable, __file__, *modules], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        )  # fmt: skip

    def ask(self, **request):
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def start(self, *words, cwd: Path, **environment: str) -> "Process":
        self.count += 1
        files = [str(self.scratch / f"{self.count}.{stream}") for stream in ("out", "err")]
        pid = self.ask(words=[str(word) for word in words], cwd=str(cwd), environment=environment, files=files)
        return Process(self, pid, *(Path(file) for file in files))

    def run(self, *words, cwd: Path, **environment: str) -> "Process":
        process = self.start(*words, cwd=cwd, **environment)
        process.wait()
        return process

    def together(self, processes: int, *words, cwd: Path) -> "list[Process]":
        """Run a line in several processes, with the environment that torchrun gives them."""
        with socket.socket() as found:
            found.bind(("localhost", 0))
            port = found.getsockname()[1]
        shared = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
        shared |= {name: str(processes) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")}
        ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
        started = [self.start(*words, cwd=cwd, **shared, **rank) for rank in ranks]
        for process in started:
            process.wait()
        return started

    def __enter__(self) -> "Launcher":
        return self

    def __exit__(self, *_) -> None:
        self.server.stdin.close()
        self.server.wait()


class Process:
    """One line that was started."""

    def __init__(self, launcher: Launcher, pid: int, out: Path, err: Path) -> None:
        self.launcher, self.pid, self._out, self._err = launcher, pid, out, err
        self.returncode = None

    @property
    def stdout(self) -> str:
        return self._out.read_text()

    @property
    def stderr(self) -> str:
        return self._err.read_text()

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self.launcher.ask(poll=self.pid)
        return self.returncode

    def wait(self, seconds: float = 240) -> int:
        """Return the exit status: minus the signal's number where one ended it."""
        end = time.monotonic() + seconds
        while self.poll() is None:
            assert time.monotonic() < end, self.stderr
            time.sleep(0.01)
        return self.returncode

    def wait_until(self, condition, seconds: float = 120) -> None:
        """Return when a condition holds; fails if the process has ended without."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.poll() is None or condition(), self.stderr
            assert time.monotonic() < end, self.stderr
            time.sleep(0.01)

    def kill(self, number: int) -> None:
        os.kill(self.pid, number)


def serve() -> None:
    from importlib import import_module

    import matplotlib.figure  # noqa: F401
    from hydra.core.hydra_config import HydraConfig  # noqa: F401

    from contraux.__main__ import main

    for name in sys.argv[1:]:
        import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                child(main, **request)
        print(json.dumps(answer), flush=True)
    os._exit(0)


def child(main, words, cwd, environment, files) -> None:
    code = 1
    try:
        streams = [os.open(os.devnull, os.O_RDONLY), *(os.open(file, os.O_CREAT | os.O_WRONLY) for file in files)]
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.chdir(cwd)
        os.environ.update(environment)
        sys.path[:0] = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
        sys.argv = ["contraux", *words]
        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
