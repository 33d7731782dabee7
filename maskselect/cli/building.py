"""`data build`: the options of each builder, and the runs."""

import argparse
from pathlib import Path
from typing import Any

from maskselect.backends.optional import require
from maskselect.cli.parsing import Parser, add_device, positive

NAMES = ("maskgroups-2m", "llm-seg40k")


def add_recipes(parser: argparse.ArgumentParser) -> None:
    """A verb for each builder."""
    verbs = parser.add_subparsers(dest="name", required=True, metavar="|".join(NAMES), parser_class=Parser)
    _add_maskgroups_2m(verbs)
    _add_llm_seg40k(verbs)


def build(options: argparse.Namespace) -> int:
    """Runs one builder; status 1 when it had to leave images out."""
    require("pyarrow", "data")
    return {"maskgroups-2m": _maskgroups_2m, "llm-seg40k": _llm_seg40k}[options.name](options)


def _add_maskgroups_2m(verbs: Any) -> None:
    told = "MaskGroups-2M out of COCO, LVIS, Visual Genome and the RefCOCO family (RAS, section 4.1)."
    parser = verbs.add_parser("maskgroups-2m", help="training prompts with and without references", description=told)
    _add_common(parser)
    parser.add_argument(
        "--refer",
        type=Path,
        required=True,
        metavar="DIR",
        help="root of the RefCOCO family: its sentences, and the images that must not be used",
    )
    parser.add_argument("--coco", type=Path, metavar="DIR", help="root of COCO 2017")
    parser.add_argument("--lvis", type=Path, metavar="DIR", help="root of LVIS v1")
    parser.add_argument("--vg", type=Path, metavar="DIR", help="root of Visual Genome")
    parser.add_argument(
        "--sets",
        nargs="+",
        metavar="NAME",
        default=["refcoco", "refcoco+", "refcocog", "grefcoco"],
        help="of the RefCOCO family: whose training sentences are used, and whose validation and test images are not "
        "(default: %(default)s)",
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N images of each source")


def _add_llm_seg40k(verbs: Any) -> None:
    told = "Reasoning questions with masks, as LLM-Seg40K was made (LLM-Seg, section 4.2)."
    parser = verbs.add_parser("llm-seg40k", help="reasoning questions by a language model", description=told)
    _add_common(parser)
    parser.add_argument("--lvis", type=Path, metavar="DIR", help="root of LVIS")
    parser.add_argument("--ego", type=Path, metavar="DIR", help="root of EgoObjects")
    for name, count, what in (
        ("simple", 6000, "of LVIS with two to five categories"),
        ("complex", 4000, "of LVIS with more"),
        ("ego-images", 3000, "of EgoObjects with more than two"),
    ):
        told = f"images {what} (default: %(default)s)"
        parser.add_argument(f"--{name}", type=_count, default=count, metavar="N", help=told)
    parser.add_argument(
        "--captioner",
        default="captioner",
        metavar="NAME_OR_PATH",
        help="a RAS of stage 1, or a LLaVA's folder or hub id such as llava-hf/llava-1.5-13b-hf (default: %(default)s, "
        "which knows generated scenes only)",
    )
    parser.add_argument("--endpoint", metavar="URL", help="of a language model that speaks OpenAI's chat completions")
    parser.add_argument("--model", required=True, metavar="NAME", help="at the endpoint; without one, hub id or folder")
    parser.add_argument(
        "--key-variable",
        default="OPENAI_API_KEY",
        metavar="NAME",
        help="environment variable that holds the endpoint's key (default: %(default)s)",
    )
    parser.add_argument("--lvis-version", choices=("v1", "v0.5"), default="v1", help="default: %(default)s")
    parser.add_argument("--png", action="store_true", help="write the masks as PNG too")


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="an interrupted build goes on there")
    proposer_help = "SAM that makes masks of boxes: a checkpoint's name, or a config (default: %(default)s)"
    parser.add_argument("--proposer", default="sam", metavar="CONFIG_OR_NAME", help=proposer_help)
    parser.add_argument("--seed", type=int, default=0, metavar="K", help="default: %(default)s")
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="default: %(default)s")
    parser.add_argument("--workers", type=positive, default=1, metavar="N", help="processes, with --engine ray")
    add_device(parser)


def _maskgroups_2m(options: argparse.Namespace) -> int:
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
    model: Any = (
        TransformersModel(options.model, options.device)
        if options.endpoint is None
        else ChatEndpoint(options.endpoint, options.model, options.key_variable)
    )
    report = build_llm_seg40k(
        options.output,
        captioner_named(options.captioner, options.device),
        model,
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


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value
