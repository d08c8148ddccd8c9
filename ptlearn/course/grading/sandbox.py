"""Running a program that nobody has read: what it may use, what it can reach, and how it ends.

The file is also run by its path, `python sandbox.py LIMITS COMMAND…`, as the first program inside the new namespaces:
it closes the doors, gives its rights up for good and becomes the command. So it imports the standard library alone.
"""

import contextlib
import ctypes
import functools
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

NAMESPACES = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc", "--net")
PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH")  # all that is kept of the environment
FOLDERS = ("HOME", "TMPDIR", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR", "XDG_CACHE_HOME")
PACKAGE = Path(__file__).resolve().parents[2]
NOBODY = 65534
PROCESSES = 301  # the lowest bound that a pid namespace takes


@dataclass(frozen=True)
class Limits:
    """What every process of a program may use: bytes, and seconds of processor time."""

    memory: int = 8 << 30  # of address space
    seconds: int = 600
    file: int = 64 << 20
    files: int = 256
    disk: int = 256 << 20  # of its folder
    gpu: bool = False  # CUDA reserves more address space than there is memory: no bound on it


class Confined:
    """A command that runs confined, as far as this system can; its folder is all that it can write to.

    Args: environment, added to the little that is passed on; content, files {name: bytes} that its folder starts with.
    Its standard input and output are pipes to the caller, and what it says on standard error is dropped.
    """

    def __init__(self, command: list[str], limits: Limits, environment: dict[str, str], content: dict | None = None):
        self.folder = Path(tempfile.mkdtemp(prefix="ptlearn-"))
        for name, data in (content or {}).items():
            Path(self.folder, name).write_bytes(data)
        self.process = spawn(command, limits, environment, self.folder, way())

    def end(self) -> None:
        """Kill it with everything that it has started, and remove its folder."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def spawn(command: list[str], limits: Limits, environment: dict, folder: Path, way: tuple) -> subprocess.Popen:
    """Start a command in its folder, as the user and in the namespaces of `way`."""
    user, namespaces = way
    if user is not None:
        os.chown(folder, user, user)
        for path in folder.iterdir():
            os.chown(path, user, user)
    told = asdict(limits) | {"folder": str(folder), "namespaces": namespaces, "user": user}
    return subprocess.Popen(
        [*(NAMESPACES if namespaces else ()), sys.executable, "-I", __file__, json.dumps(told), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=whitelisted(folder, limits.gpu) | environment,
        cwd=folder,
        start_new_session=True,
        **({} if user is None else {"user": user, "group": user, "extra_groups": []}),
    )


def whitelisted(folder: Path, gpu: bool) -> dict[str, str]:
    """The environment of a confined program: nothing secret, nothing personal, no shadowed package, one thread."""
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not gpu or devices is not None:
        kept["CUDA_VISIBLE_DEVICES"] = devices if gpu else ""
    return kept | dict.fromkeys(FOLDERS, str(folder)) | {
        "PYTHONPATH": str(PACKAGE.parent),
        "PYTHONSAFEPATH": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HF_HUB_OFFLINE": "1",
        "PTLEARN_QUIET": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "MPLBACKEND": "agg",
    }


@functools.cache
def way() -> tuple[int | None, bool]:
    """How far a program can be confined here: the user to run it as (None: one's own), and whether in namespaces.

    What an administrator grades runs as nobody where nobody can read the course: few limits bind root.
    """
    if os.name != "posix":
        raise OSError("grading needs Linux or macOS; on Windows it runs in WSL")
    users = [NOBODY, None] if os.geteuid() == 0 else [None]
    ways = [(user, namespaces) for namespaces in (True, False) for user in users]
    found = next((way for way in ways if works(way)), None)
    if found is None:
        raise OSError(f"grading starts {sys.executable} anew in a temporary folder, which fails here")
    return found


def works(way: tuple[int | None, bool]) -> bool:
    """Whether a program can be confined in this way and still finds the course."""
    folder = Path(tempfile.mkdtemp(prefix="ptlearn-"))
    try:
        code = "import os, ptlearn.course.exercise; child = os.fork() or os._exit(0); os.waitpid(child, 0)"
        process = spawn([sys.executable, "-c", code], Limits(), {}, folder, way)
        process.communicate()
        return process.returncode == 0
    except OSError:
        return False
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def weakness() -> str:
    """What is missing here, in one line; empty where a program is confined in namespaces."""
    if way()[1]:
        return ""
    return "no namespaces here (unshare fails): submissions can use the network and write your files; use a container"


# ---------------------------------------------------------------- inside

MOUNT_SETATTR, RECURSIVE, READ_ONLY = 442, 0x8000, 1
SET_FLAGS, UP = 0x8914, 0x41  # ioctl of a network interface
DROP_BOUNDING, NO_NEW_RIGHTS, CAPABILITIES = 24, 38, 0x20080522


def main(told: dict, command: list[str]) -> None:
    """Close the doors and become the command."""
    if told["namespaces"]:
        system = ctypes.CDLL(None, use_errno=True)
        limit_processes()
        seal(system, Path(told["folder"]), told["disk"])
        loopback()
        give_up_rights(system)
    set_limits(told)
    os.execvp(command[0], command)


def limit_processes() -> None:
    """Bound the processes of this namespace, root's too; kernels before 6.14 have one bound for all namespaces."""
    with contextlib.suppress(OSError):
        Path("/proc/sys/kernel/pid_max").write_text(str(PROCESSES))


def seal(system: ctypes.CDLL, folder: Path, size: int) -> None:
    """Make every file read-only, and the folder one in memory that ends with the namespace."""
    content = {path: path.read_bytes() for path in folder.iterdir()}
    attributes = struct.pack("QQQQ", READ_ONLY, 0, 0, 0)
    done(system.syscall(MOUNT_SETATTR, -1, b"/", RECURSIVE, attributes, ctypes.c_size_t(len(attributes))))
    done(system.mount(b"none", bytes(folder), b"tmpfs", 0, b"mode=700,size=%d" % size))
    for path, data in content.items():
        path.write_bytes(data)
    os.chdir(folder)


def loopback() -> None:
    """Bring up the interface that a notebook's kernel is reached through; there is no other one."""
    import fcntl

    with socket.socket() as found:
        fcntl.ioctl(found, SET_FLAGS, struct.pack("16sH14x", b"lo", UP))


def give_up_rights(system: ctypes.CDLL) -> None:
    """Lose every capability, for this program and whatever it becomes: nothing that was sealed can be opened again."""
    for capability in range(64):
        system.prctl(DROP_BOUNDING, capability, 0, 0, 0)
    done(system.prctl(NO_NEW_RIGHTS, 1, 0, 0, 0))
    done(system.capset(struct.pack("Ii", CAPABILITIES, 0), struct.pack("6I", *[0] * 6)))


def done(result: int) -> None:
    """Stop where the system refused."""
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def set_limits(told: dict) -> None:
    """The limits that hold for each process; the first to be killed when memory runs out."""
    import resource

    bounds = {
        "RLIMIT_CORE": 0,
        "RLIMIT_CPU": told["seconds"],
        "RLIMIT_FSIZE": told["file"],
        "RLIMIT_NOFILE": told["files"],
        "RLIMIT_AS": None if told["gpu"] else told["memory"],
        "RLIMIT_NPROC": PROCESSES if told["namespaces"] or told["user"] is not None else None,  # counts the user's
    }
    for name, bound in bounds.items():
        if bound is not None and hasattr(resource, name):
            with contextlib.suppress(ValueError, OSError):  # a limit that is lower already, or none that macOS knows
                resource.setrlimit(getattr(resource, name), (bound, bound))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2:])
