"""What a forked process has to know: it inherits torch and OpenCV, but not the threads that they compute with."""

import os

import cv2
import torch

_settled_in = os.getpid()


def settle_in_fork() -> None:
    """Compute in one thread from now on, if this process was forked from one that had loaded torch.

    Call it before any computing. A parallel region would wait for threads that only the parent has (GNU OpenMP does not
    survive a fork). Done once a process; `torch.set_num_threads` may be called afterwards, at one's own risk.
    """
    global _settled_in  # noqa: PLW0603
    if os.getpid() != _settled_in:
        torch.set_num_threads(1)
        cv2.setNumThreads(0)
        _settled_in = os.getpid()
