"""Makes a forked process safe: it inherits torch and OpenCV, but not their threads."""

import os

import cv2
import torch

_settled_in = os.getpid()


def settle_in_fork() -> None:
    """Use one thread from now on, if this process was forked after torch was loaded.

    Call it before any computing: a parallel region would wait for threads that exist only in the parent (GNU OpenMP
    does not survive a fork). It takes effect once per process, so `torch.set_num_threads` may be called afterwards.
    """
    global _settled_in  # noqa: PLW0603
    if os.getpid() != _settled_in:
        torch.set_num_threads(1)
        cv2.setNumThreads(0)
        _settled_in = os.getpid()
