"""Videos with expressions as training groups of clips."""

from pathlib import Path

import numpy as np
import pytest

from maskselect.data.video import RevosDataset
from maskselect.data.video_groups import VideoGroups
from maskselect.structures.clip_groups import ClipGroupSource
from tests.data.test_video import revos


def test_videos_are_clips_with_prompts(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    revos(tmp_path)
    source, samples = VideoGroups("revos", tmp_path, "valid"), list(RevosDataset(tmp_path, "valid"))
    assert isinstance(source, ClipGroupSource)
    assert sorted(source.videos) == sorted({sample.video_id for sample in samples})
    for item, video in enumerate(source.videos):
        own = [sample for sample in samples if sample.video_id == video]
        clip = source.load_clip(item)
        assert len(clip.clip) == len(clip.masks) == len(own[0].frames)
        queries = source.queries(item, {}, 99, np.random.default_rng(0))
        assert len(queries) == len(own) == source.prompts_of(item)
        for sample in own:
            query = next(q for q in queries if q.text == " ".join(sample.prompt.replace("(s)", "").split()))
            assert bool(query.targets) == bool(sample.object_ids)
            assert (query.group == "reasoning") == (sample.kind == "reasoning")
            for frame in range(len(own[0].frames)):
                found = clip.masks[frame]
                assert found.shape[1:] == sample.size
                if query.targets:
                    assert sample.masks is not None
                    assert np.array_equal(found[query.targets[0]].numpy(), sample.masks[frame])
        with pytest.raises(IndexError):
            clip.masks[len(clip.masks)]
    joined = VideoGroups("revos", tmp_path, "valid", expressions="joined")
    for item in range(len(joined)):
        for query in joined.queries(item, {}, 99, np.random.default_rng(0)):
            assert query.text.endswith(".")
        assert joined.prompts_of(item) <= source.prompts_of(item)
