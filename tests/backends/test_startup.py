"""The quick start leaves torch's compiler out, and leaves it usable. In processes of their own: imports happen once."""

import subprocess
import sys

PREAMBLE = "import sys, torch; from maskselect.backends.startup import quick_imports\n"


def _runs(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", PREAMBLE + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_compiler_stays_out_until_it_is_used() -> None:
    _runs("""
with quick_imports():
    import maskselect.predictor
assert "torch._dynamo.symbolic_convert" not in sys.modules
assert torch.distributed.is_available()
compiled = torch.compile(lambda x: 2 * x + 1, backend="eager")
assert compiled(torch.ones(2)).tolist() == [3, 3]
assert "torch._dynamo.symbolic_convert" in sys.modules
from torchvision.ops import roi_align
assert roi_align(torch.rand(1, 2, 8, 8), [torch.tensor([[0, 0, 4.0, 4]])], 2).shape == (1, 2, 2, 2)
""")


def test_its_submodules_can_come_first() -> None:
    _runs("""
with quick_imports():
    import torchvision
from torch._dynamo.utils import counters
import torch._dynamo
assert torch._dynamo.utils.counters is counters
""")


def test_what_asks_for_more_inside_gets_it() -> None:
    _runs("""
with quick_imports():
    import torch._dynamo
    torch._dynamo.reset()
    from torch._dynamo.utils import counters
assert "torch._dynamo.symbolic_convert" in sys.modules
""")


def test_a_loaded_compiler_is_left_alone() -> None:
    _runs("""
import torch._dynamo
before = torch._dynamo
with quick_imports():
    import torchvision
assert sys.modules["torch._dynamo"] is before and before.disable.__module__.startswith("torch.")
""")
