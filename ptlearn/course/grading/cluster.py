"""Grading on more than one machine: submissions handed to a Dask cluster, each graded once.

Start one `dask scheduler`, and on every machine with the course installed `dask worker tcp://HOST:8786 --nthreads 1
--nworkers CORES`. Dask trusts everybody who can reach its port: use a network of your own, or its `tls://`.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

SECONDS = 20.0  # to find the scheduler, and then a first worker
RETRIES = 1  # of a task that raised; one whose worker died is handed to another, up to three times


def grade_on(address: str, function: Callable[[Any], Any], tasks: Iterable) -> Iterator[tuple[Any, Any]]:
    """Run function(task) for every task on the workers of a cluster, and yield each as soon as it is done.

    Args:    address: of the scheduler, "tcp://HOST:PORT"; function, tasks: what pickle can send.
    Yields:  (task, what the function returned), once per task in any order, also when workers die in the middle; where
             the function raised, or one worker after another died of the task, (task, the exception).
    Raises:  ConnectionError naming the address where no scheduler answers or no worker has joined it.
    """
    from distributed import Client, as_completed

    try:
        client = Client(address, timeout=SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConnectionError(f"scheduler: no Dask scheduler answers at {address!r}: {reason}") from None
    with client:
        require_worker(client, address)
        futures = {client.submit(function, task, retries=RETRIES, pure=False): task for task in tasks}
        for future in as_completed(list(futures), loop=client.loop):
            task = futures.pop(future)
            yield task, future.exception() or future.result()
            future.release()


def require_worker(client, address: str) -> None:
    """Refuse a cluster without workers, on which tasks would wait for ever."""
    try:
        client.wait_for_workers(1, timeout=SECONDS)
    except TimeoutError:
        hint = f"start one with: dask worker {address} --nthreads 1"
        raise ConnectionError(f"scheduler: no worker has joined {address!r}; {hint}") from None
