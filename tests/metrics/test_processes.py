"""Two gloo processes with half of the samples each report what one process with all of them does."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROCESS = """
    import json, sys, warnings, numpy as np, torch, torch.distributed as dist
    sys.path.insert(0, {root!r})
    warnings.simplefilter("ignore")
    from maskselect.metrics.protocols import PROTOCOLS
    from maskselect.metrics.referring import ReferringMetrics
    from maskselect.metrics.video import VideoMetrics
    from tests.metrics import references as ref

    rank, world = int(sys.argv[1]), int(sys.argv[2])
    if world > 1:
        dist.init_process_group("gloo", init_method="file://" + sys.argv[3], rank=rank, world_size=world)
    found = {{}}
    for name in PROTOCOLS:
        metrics = ReferringMetrics(protocol=name)
        # The last two processes' shares differ in number, and the second one holds no sample without a target.
        for case in ref.draw_cases(9, 3)[rank::world]:
            masks = [torch.from_numpy(each) for each in case[:4]]
            metrics.update(*masks[:3], predicted_none=case.rejected, ignore=masks[3])
        found[name] = {{key: round(float(value), 12) for key, value in metrics.compute().items()}}
    for name in ("revos", "mevis", "davis"):
        rng, metrics = np.random.default_rng(4), VideoMetrics(name)
        for number in range(7):
            answer, truth, rest = (torch.from_numpy(each) for each in ref.draw_clip(rng, 3, 2, (8, 9)))
            if number % world == rank:
                masks = (answer[None], truth[None]) if name == "davis" else (answer, truth)
                metrics.update(*masks, foreground=truth | rest, group=0 if name == "mevis" else number % 2)
        found[name] = {{key: round(float(value), 12) for key, value in metrics.compute().items()}}
    print(json.dumps(found, sort_keys=True))
    if world > 1:
        dist.destroy_process_group()
"""


@pytest.mark.slow  # three interpreters that import torch
def test_two_processes_add_up_to_one(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(PROCESS.format(root=str(ROOT)))]
    runs = [("0", "1"), ("0", "2"), ("1", "2")]
    running = [
        subprocess.Popen([*command, *run, str(tmp_path / "meet")], stdout=subprocess.PIPE, text=True) for run in runs
    ]
    alone, first, second = (process.communicate(timeout=900)[0].strip() for process in running)
    assert len(json.loads(alone)) > 10
    assert first == second == alone
