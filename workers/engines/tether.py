"""Ties a child process to the life of the worker that started it."""

import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ends this process and its group once the starter is gone, however it died.

    The starter holds the other end of our standard input: when it closes, nobody needs us. On Linux
    the kernel also kills us with the thread that started us, which works even where a forked sibling
    still holds that pipe, or while a model loads and Python cannot run.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch, name="tether", daemon=True).start()


def _watch() -> None:
    while os.read(0, 4096):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)
