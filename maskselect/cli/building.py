"""`data build`: the options of each builder, and the runs."""

import argparse
from pathlib import Path
from typing import Any

from maskselect.backends.optional import require
from maskselect.cli.parsing import add_device, natural, positive

RECIPES = ("text4seg-res", "text4seg-gres", "text4seg-ovs", "text4seg-665k", "text4segpp")
"""The names in `recipes.text4seg.mixture.RECIPES`."""
ROOTS = {
    "refer": "the RefCOCO family and gRefCOCO",
    "coco": "COCO 2017 with panoptic and COCO-Stuff labels",
    "pix2cap": "Pix2Cap-COCO, with COCO's panoptic maps and images",
    "reasonseg": "ReasonSeg",
    "muse": "MUSE",
    "rrsisd": "RRSIS-D",
    "earthreason": "EarthReason",
    "llava": "LLaVA's texts and images",
}
"""What the folders in `recipes.text4seg.mixture.ROOTS` hold."""


def add_recipes(parser: argparse.ArgumentParser) -> None:
    """Add a verb for each builder, which sets `run`."""
    verbs = parser.add_subparsers(required=True)
    _add_maskgroups_2m(verbs)
    _add_llm_seg40k(verbs)
    _add_text4seg(verbs)
    _add_photos(verbs)


def _add_maskgroups_2m(verbs: Any) -> None:
    description = "Build MaskGroups-2M from COCO, LVIS, Visual Genome and the RefCOCO family (RAS, section 4.1)."
    short = "training prompts with and without references"
    parser = verbs.add_parser("maskgroups-2m", help=short, description=description)
    parser.set_defaults(run=_maskgroups_2m)
    _add_common(parser)
    refer_help = "root of the RefCOCO family: its sentences, and the images that must not be used"
    parser.add_argument("--refer", type=Path, required=True, metavar="DIR", help=refer_help)
    parser.add_argument("--coco", type=Path, metavar="DIR", help="root of COCO 2017")
    parser.add_argument("--lvis", type=Path, metavar="DIR", help="root of LVIS v1")
    parser.add_argument("--vg", type=Path, metavar="DIR", help="root of Visual Genome")
    parser.add_argument(
        "--sets",
        nargs="+",
        metavar="NAME",
        default=["refcoco", "refcoco+", "refcocog", "grefcoco"],
        help="data sets of the RefCOCO family: their training sentences are used, and their validation and test images "
        "are excluded (default: %(default)s)",
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N images of each source")


def _add_llm_seg40k(verbs: Any) -> None:
    description = "Build reasoning questions with masks, as LLM-Seg40K was made (LLM-Seg, section 4.2)."
    short = "reasoning questions by a language model"
    parser = verbs.add_parser("llm-seg40k", help=short, description=description)
    parser.set_defaults(run=_llm_seg40k)
    _add_common(parser)
    parser.add_argument("--lvis", type=Path, metavar="DIR", help="root of LVIS")
    parser.add_argument("--ego", type=Path, metavar="DIR", help="root of EgoObjects")
    for name, count, images in (
        ("simple", 6000, "LVIS with two to five categories"),
        ("complex", 4000, "LVIS with more categories"),
        ("ego-images", 3000, "EgoObjects with more than two categories"),
    ):
        count_help = f"number of images of {images} (default: %(default)s)"
        parser.add_argument(f"--{name}", type=natural, default=count, metavar="N", help=count_help)
    parser.add_argument(
        "--captioner",
        default="captioner",
        metavar="NAME_OR_PATH",
        help="a RAS of stage 1, or a LLaVA's folder or hub id such as llava-hf/llava-1.5-13b-hf (default: %(default)s, "
        "which knows only generated scenes)",
    )
    endpoint_help = "URL of a language model that offers OpenAI's chat completions"
    parser.add_argument("--endpoint", metavar="URL", help=endpoint_help)
    model_help = "the model's name at the endpoint; without --endpoint its hub id or folder"
    parser.add_argument("--model", required=True, metavar="NAME", help=model_help)
    key_help = "environment variable that holds the endpoint's key (default: %(default)s)"
    parser.add_argument("--key-variable", default="OPENAI_API_KEY", metavar="NAME", help=key_help)
    parser.add_argument("--lvis-version", choices=("v1", "v0.5"), default="v1", help="default: %(default)s")
    parser.add_argument("--png", action="store_true", help="also write the masks as PNG")


def _add_text4seg(verbs: Any) -> None:
    description = (
        "Write the training data of Text4Seg or Text4Seg++ as chat records with masks as text, in JSON lines for "
        "ms-swift. Prints the counts beside the paper's. Status 1 if images were left out."
    )
    parser = verbs.add_parser("text4seg", help="chat records with masks as text", description=description)
    parser.set_defaults(run=_text4seg)
    parser.add_argument("--recipe", choices=RECIPES, default="text4segpp", help="default: %(default)s")
    for name, holds in ROOTS.items():
        parser.add_argument(f"--{name}", type=Path, metavar="DIR", help=f"root of {holds}")
    parts_help = "only these parts of the recipe; default: all whose root is given"
    parser.add_argument("--parts", nargs="+", metavar="NAME", help=parts_help)
    grid_help = "cells of a side (default: 16, with text4seg-ovs 32, with text4segpp 64)"
    parser.add_argument("--grid", type=positive, metavar="N", help=grid_help)
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N images of each pass over a part")
    parser.add_argument("--count", action="store_true", help="print the counts from the annotations, and write nothing")
    _add_output(parser, required=False)
    _add_run(parser)


def _add_photos(verbs: Any) -> None:
    description = (
        "Draw prompts about annotated photographs (COCO's format, see recipes/photos/groups.py), and write them as "
        "data that --dataset own reads."
    )
    parser = verbs.add_parser("photos", help="prompts about annotated photographs", description=description)
    parser.set_defaults(run=_photos)
    parser.add_argument("--photos", type=Path, required=True, metavar="DIR", help="folder with SPLIT.json and images/")
    parser.add_argument("--split", default="val", metavar="S", help="default: %(default)s")
    prompts_help = "most prompts of a photograph (default: %(default)s)"
    parser.add_argument("--prompts", type=positive, default=8, metavar="N", help=prompts_help)
    kinds_help = "only these kinds, equally often; default: all by their shares"
    parser.add_argument("--kinds", nargs="+", metavar="KIND", help=kinds_help)
    unseen_help = "call things only by words that training never uses"
    parser.add_argument("--unseen-words", action="store_true", help=unseen_help)
    parser.add_argument("--seed", type=int, default=0, metavar="K", help="default: %(default)s")
    _add_output(parser)


def _photos(options: argparse.Namespace) -> int:
    from maskselect.recipes.photos.build import build_photos
    from maskselect.recipes.photos.groups import PhotoGroups

    shares = None if options.kinds is None else dict.fromkeys(options.kinds, 1.0)
    groups = PhotoGroups(options.photos, options.split, kind_shares=shares, unseen_words=options.unseen_words)
    counts = build_photos(groups, options.output, options.split, options.prompts, options.seed)
    print(", ".join(f"{name}: {count:,}" for name, count in counts.items()))
    print(f"-> {options.output}; read it with --dataset own --root {options.output} --split {options.split}")
    return 0


def _add_common(parser: argparse.ArgumentParser) -> None:
    _add_output(parser)
    proposer_help = "SAM that turns boxes into masks: a checkpoint's name, or a config (default: %(default)s)"
    parser.add_argument("--proposer", default="sam", metavar="CONFIG_OR_NAME", help=proposer_help)
    _add_run(parser)
    add_device(parser)


def _add_output(parser: argparse.ArgumentParser, required: bool = True) -> None:
    output_help = "output folder; an interrupted build continues in it"
    parser.add_argument("--output", type=Path, required=required, metavar="DIR", help=output_help)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, metavar="K", help="default: %(default)s")
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="default: %(default)s")
    parser.add_argument("--workers", type=positive, default=1, metavar="N", help="number of processes of --engine ray")


def _maskgroups_2m(options: argparse.Namespace) -> int:
    require("pyarrow", "data")
    from maskselect.recipes.box_masks import ProposerBoxes
    from maskselect.recipes.maskgroups_2m.build import Roots, build_maskgroups_2m
    from maskselect.recipes.maskgroups_2m.sources import Rules
    from maskselect.reports.data import print_composition

    rows, counts = build_maskgroups_2m(
        Roots(options.refer, options.coco, options.lvis, options.vg),
        options.output,
        options.sets,
        Rules(seed=options.seed),
        None if options.vg is None else ProposerBoxes(options.proposer, options.device),
        options.limit,
        engine=options.engine,
        workers=options.workers,
    )
    print_composition(rows, counts)
    print(f"-> {options.output}; read it with --dataset maskgroups-2m --root {options.output} --split train")
    return 0


def _llm_seg40k(options: argparse.Namespace) -> int:
    require("pyarrow", "data")
    from maskselect.recipes.box_masks import ProposerBoxes
    from maskselect.recipes.llm_seg40k.build import Settings, build_llm_seg40k
    from maskselect.recipes.llm_seg40k.captioners import captioner_named
    from maskselect.recipes.llm_seg40k.language_models import ChatEndpoint, TransformersModel
    from maskselect.reports.data import print_questions

    settings = Settings(
        simple=options.simple,
        complex=options.complex,
        ego_objects=options.ego_images,
        seed=options.seed,
        lvis_version=options.lvis_version,
        write_png=options.png,
    )
    report = build_llm_seg40k(
        options.output,
        captioner_named(options.captioner, options.device),
        TransformersModel(options.model, options.device)
        if options.endpoint is None
        else ChatEndpoint(options.endpoint, options.model, options.key_variable),
        options.lvis,
        options.ego,
        None if options.ego is None else ProposerBoxes(options.proposer, options.device),
        settings,
        options.engine,
        options.workers,
    )
    print_questions(report)
    print(f"-> {options.output}; read it with --dataset llm-seg40k --root {options.output} --split train")
    return 1 if report["images"]["skipped"] else 0


def _text4seg(options: argparse.Namespace) -> int:
    from maskselect.cli.failures import report_left_out
    from maskselect.recipes.text4seg.build import build_records, count_recipe
    from maskselect.reports.data import print_recipe

    roots = {name: root for name in ROOTS if (root := getattr(options, name)) is not None}
    if options.count:
        print_recipe(options.recipe, count_recipe(options.recipe, roots, options.parts))
        return 0
    if options.output is None:
        raise ValueError("--output is missing; expected a folder for the records, or --count")
    rows, counts, left_out = build_records(
        options.recipe,
        roots,
        options.output,
        options.parts,
        options.grid,
        options.seed,
        options.limit,
        engine=options.engine,
        workers=options.workers,
    )
    print_recipe(options.recipe, rows, counts)
    print(f"-> {options.output}")
    return report_left_out(left_out, "images or prompts")
