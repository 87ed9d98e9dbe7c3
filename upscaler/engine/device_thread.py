"""The thread of a device: whatever computes there is called from it."""

import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import torch

Args = ParamSpec("Args")
Result = TypeVar("Result")


class DeviceThread:
    """One thread for a device, which lives as long as this object, or until `close`.

    cuDNN keeps its plans of convolutions for each thread, and leaks them with it: in threads that
    come and go, as a server's do, each would plan everything anew, and the memory of the process
    would grow. Which card is meant by "cuda" is a property of a thread as well.
    """

    def __init__(self, device: torch.device) -> None:
        """Start the thread. Raises what torch raises for a card that it cannot use."""
        self._executor = ThreadPoolExecutor(1, f"{device}")
        self._ident = self._executor.submit(threading.get_ident).result()
        if str(device).startswith("cuda:"):
            self.run(torch.cuda.set_device, device)

    def run(self, work: Callable[Args, Result], *args: Args.args, **kwargs: Args.kwargs) -> Result:
        """Call `work` in the thread, after what was asked for before; return or raise its outcome.

        In the thread itself it is called at once: there an abandoned iterator may be collected.
        """
        if threading.get_ident() == self._ident:
            return work(*args, **kwargs)
        # The future is in no variable: an error's frames would hold it, and it the error.
        return self._executor.submit(work, *args, **kwargs).result()

    def iterate(
        self, make: Callable[[], Iterator[Result]], give_up: Callable[[], object]
    ) -> Generator[Result]:
        """Yield what `make()` yields, each of which is computed in the thread when it is asked for.

        Not ahead of that: a queue between the two would hold more than a plan counts, and gain
        nothing. On a GPU the next strips are computed while one is encoded in any case (see
        `tensors.to_host`), and on a CPU both take all cores. `give_up` is called at the end: what
        is still computed then is for nobody.
        """
        items = self.run(make)
        try:
            while (item := self.run(next, items, None)) is not None:
                yield item
        finally:
            give_up()
            if isinstance(items, Generator):  # what it holds is released in the thread, too
                self.run(items.close)

    def close(self) -> None:
        """End the thread when it has done what it does. Nothing may be asked of it afterwards."""
        self._executor.shutdown(wait=False, cancel_futures=True)
