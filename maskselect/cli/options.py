"""The options of each command."""

import argparse
from pathlib import Path
from typing import Any

from maskselect.cli.building import add_recipes
from maskselect.cli.parsing import Parser, add_device, formats, fraction, local, positive, words
from maskselect.cli.using import check_data, list_data

PROPOSER_HELP = "a config, a checkpoint of SAM, or a model whose proposer is used"


def predict_parser(prog: str) -> argparse.ArgumentParser:
    """Options of `predict`."""
    parser = Parser(prog=prog, description="Select the group of masks that answers a prompt.")
    visual = parser.add_mutually_exclusive_group(required=True)
    visual.add_argument(
        "--image", nargs="+", action="extend", type=local, metavar="FILE_OR_DIR", help="may be repeated"
    )
    visual.add_argument("--video", type=local, metavar="FILE_OR_FRAMES_DIR", help="a video file or a folder of frames")
    prompt_help = "may hold <mask-ref> for references; may be repeated, with answers in NAME.1.json, NAME.2.json, …"
    parser.add_argument("--prompt", action="append", type=words, required=True, metavar="TEXT", help=prompt_help)
    parser.add_argument(
        "--reference",
        action="append",
        default=[],
        metavar="REF",
        help="for the n-th <mask-ref>: a mask image (non-zero is inside), box:x0,y0,x1,y1 or point:x,y in pixels; only "
        "one of several prompts may have references",
    )
    parser.add_argument(
        "--reference-frame",
        action="append",
        default=[],
        type=int,
        metavar="N",
        help="number of the video frame, from 0, on which the n-th --reference is given; default: 0",
    )
    parser.add_argument("--output", type=Path, default=Path("outputs"), metavar="DIR", help="default: %(default)s/")
    parser.add_argument(
        "--formats",
        type=formats,
        default=formats("json,mask,overlay"),
        metavar="NAME,…",
        help="what is written, with commas between: json, mask, overlay, masks (a PNG for each mask), svg, and data "
        "sets of all images in new folders: coco, coco-polygons, labelme, yolo. Default: json,mask,overlay; a video "
        "has no others. See docs/guide/output_format.md",
    )
    parser.add_argument(
        "--threshold", type=fraction, metavar="T", help="minimum score in [0, 1]; default: the model's own"
    )
    add_refiner(parser)
    add_own_proposer(parser)
    _add_proposals(parser)
    add_model(parser)
    return parser


def evaluate_parser(prog: str) -> argparse.ArgumentParser:
    """Options of `evaluate`."""
    parser = Parser(prog=prog, description="Evaluate a model through the same path as predict.")
    _add_samples(parser, "test", several=True)
    protocol_help = "definition of the metrics, see docs/guide/metrics.md; default: the data set's own"
    parser.add_argument("--protocol", metavar="NAME", help=protocol_help)
    parser.add_argument("--with-gt-candidates", action="store_true", help="add the ground-truth masks to the pool")
    submission_help = (
        "also write the answers to a data set of videos: a folder of PNGs as its server or toolkit reads them, a .zip "
        "of them, or run lengths in a .json file. A further run continues. See docs/guide/video.md"
    )
    parser.add_argument("--submission", type=Path, metavar="DIR_OR_FILE", help=submission_help)
    parser.add_argument("--output", type=Path, required=True, metavar="REPORT.json")
    _add_overwrite(parser)
    add_refiner(parser)
    add_own_proposer(parser)
    _add_proposals(parser)
    add_model(parser)
    return parser


def calibrate_parser(prog: str) -> argparse.ArgumentParser:
    """Options of `calibrate`."""
    parser = Parser(
        prog=prog,
        description=(
            "Choose the threshold of highest F1 on validation samples. Clips have a threshold of their own, chosen by "
            "J&F and N-acc together."
        ),
    )
    _add_samples(parser, "val", clips=True)
    n_acc_help = "minimum N-acc of the threshold, in percent"
    parser.add_argument("--least-n-acc", type=float, default=0.0, metavar="P", help=n_acc_help)
    parser.add_argument("--output", type=Path, metavar="TABLE.json", help="write the metrics at each threshold")
    _add_overwrite(parser)
    parser.add_argument("--write", action="store_true", help="store the threshold in the checkpoint's card")
    add_refiner(parser)
    add_own_proposer(parser)
    _add_proposals(parser)
    add_model(parser)
    return parser


def compare_parser(prog: str) -> argparse.ArgumentParser:
    """Options of `compare`."""
    parser = Parser(prog=prog, description="Compare two evaluations sample by sample.")
    parser.add_argument("first", type=Path, metavar="A.json")
    parser.add_argument("second", type=Path, metavar="B.json")
    parser.add_argument(
        "--cases",
        type=positive,
        default=10,
        metavar="N",
        help="number of changed samples to print (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, metavar="COMPARISON.json")
    _add_overwrite(parser)
    return parser


def recall_parser(prog: str) -> argparse.ArgumentParser:
    """Options of `recall`."""
    parser = Parser(prog=prog, description="Measure a proposer's candidates: oracle and recall.")
    _add_samples(parser, "test")
    parser.add_argument(
        "--proposer", default="sam", metavar="CONFIG_OR_NAME", help=f"{PROPOSER_HELP} (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, metavar="REPORT.json")
    _add_overwrite(parser)
    _add_proposals(parser)
    add_device(parser)
    return parser


def _add_samples(parser: argparse.ArgumentParser, split: str, several: bool = False, clips: bool = False) -> None:
    dataset_help = (
        "scenes, scenes-reasoning, scenes-unknown or scenes-twins (generated if --root is absent or empty), or a name "
        "that `maskselect data list` prints"
    )
    if several or clips:
        dataset_help += "; scenes-clips has clips"
    if several:
        dataset_help += "; scenes-classes asks for all classes of generated scenes together"
    count: dict[str, Any] = {"nargs": "+", "action": "extend"} if several else {}
    parser.add_argument("--dataset", required=True, metavar="NAME", help=dataset_help, **count)
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder of the data set")
    parser.add_argument("--split", default=split, metavar="S", help="default: %(default)s")
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N samples")
    scenes_help = "number of generated scenes (default: 1000; of scenes-clips 200)"
    parser.add_argument("--scenes", type=positive, metavar="N", help=scenes_help)
    parser.add_argument("--seed", type=int, default=0, help="of generated scenes (default: %(default)s)")
    parser.add_argument("--reference-column", metavar="NAME", help="column of the reference masks; default: mask_refs")


def propose_parser(prog: str) -> argparse.ArgumentParser:
    """Options of `propose`."""
    description = "Store candidates for the images of a data set, as parquet shards with one row per image."
    parser = Parser(prog=prog, description=description)
    images = parser.add_mutually_exclusive_group(required=True)
    images_help = "folder of images, WebDataset shards (.tar) or .parquet; or one such shard"
    images.add_argument("--images", type=Path, metavar="DIR", help=images_help)
    dataset_help = "scenes (generated if --root is absent or empty), or a name that `maskselect data list` prints"
    images.add_argument("--dataset", metavar="NAME", help=dataset_help)
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder of the data set")
    parser.add_argument("--split", metavar="S", help="of the data set")
    parser.add_argument(
        "--scenes", type=positive, default=1000, metavar="N", help="number of generated scenes (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of generated scenes (default: %(default)s)")
    image_help = "parquet column of encoded images (default: image, or the only such column)"
    parser.add_argument("--image-column", metavar="NAME", help=image_help)
    key_help = "parquet column of keys (default: key, __key__, image_id or id; else file and row)"
    parser.add_argument("--key-column", metavar="NAME", help=key_help)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--proposer", default="sam", metavar="CONFIG_OR_NAME", help=f"{PROPOSER_HELP} (default: %(default)s)"
    )
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="default: %(default)s")
    workers_help = (
        "number of images in parallel; with --engine ray number of processes, each with its own GPU for --device cuda "
        "(default: %(default)s)"
    )
    parser.add_argument("--workers", type=positive, default=1, metavar="N", help=workers_help)
    parser.add_argument("--resume", action="store_true", help="skip images whose candidates are stored")
    shard_help = "images per shard; a killed run loses one shard at most (default: %(default)s)"
    parser.add_argument("--per-shard", type=positive, default=128, metavar="N", help=shard_help)
    add_device(parser)
    return parser


def data_parser(prog: str) -> argparse.ArgumentParser:
    """Options of `data`."""
    parser = Parser(prog=prog, description="List, check and build data sets.")
    verbs = parser.add_subparsers(required=True)
    listing = verbs.add_parser("list", help="the data sets that can be read, and where to get them")
    listing.set_defaults(run=list_data)
    add_recipes(verbs.add_parser("build", help="build a training set from others"))
    check_text = "Read every sample of a data set; status 1 if there are problems."
    check = verbs.add_parser("check", help="read every sample of a data set", description=check_text)
    check.set_defaults(run=check_data)
    check.add_argument("name", metavar="NAME")
    check.add_argument("--root", type=Path, required=True, metavar="DIR", help="folder of the data set")
    check.add_argument("--split", metavar="S", help="only this split; default: all published splits that exist")
    check.add_argument("--limit", type=positive, metavar="N", help="only the first N samples of a split")
    check.add_argument("--output", type=Path, metavar="REPORT.json", help="also write the report")
    return parser


def scenes_parser(prog: str) -> argparse.ArgumentParser:
    """Options of `make_scenes`."""
    description = (
        "Generate scenes with prompts and ground truth, in MaskGroups-HQ's format; with --clips scenes in motion, in "
        "ReVOS' format."
    )
    parser = Parser(prog=prog, description=description)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--split", required=True, metavar="S", help="train, val, test, test-words or test-look")
    parser.add_argument("--count", type=positive, required=True, metavar="N", help="number of scenes or clips")
    parser.add_argument("--seed", type=int, required=True, metavar="K")
    parser.add_argument("--clips", action="store_true", help="clips of moving objects, into a new folder")
    frames_help = "frames of a clip, 3 to 60 (default: 12, 8 a second)"
    parser.add_argument("--frames", type=positive, metavar="T", help=frames_help)
    size_help = "side, or height and width (default: 256)"
    parser.add_argument("--size", type=positive, nargs="+", metavar="PX", help=size_help)
    prompts_help = "default: 3, with --clips 5 of each clip"
    parser.add_argument("--prompts-per-scene", type=positive, metavar="N", help=prompts_help)
    reasoning_help = "reasoning prompts per scene, each followed by its plain form (default: 0)"
    parser.add_argument("--reasoning-per-scene", type=positive, default=0, metavar="N", help=reasoning_help)
    unknown_help = "prompts per scene with a word that the scenes never show (default: 0)"
    parser.add_argument("--unknown-per-scene", type=positive, default=0, metavar="N", help=unknown_help)
    parser.add_argument("--proposer", metavar="CONFIG_OR_NAME", help="also write its candidates, in mask_pool")
    add_device(parser)
    return parser


def _add_overwrite(parser: argparse.ArgumentParser) -> None:
    overwrite_help = "replace the file at --output, also that of another model"
    parser.add_argument("--overwrite", action="store_true", help=overwrite_help)


def add_refiner(parser: argparse.ArgumentParser) -> None:
    """Add `--refiner`."""
    refiner_help = "refine the masks of every answer: sam, samrefiner, crf, snap, or a YAML file with class_path"
    parser.add_argument("--refiner", metavar="NAME", help=refiner_help)


def _add_proposals(parser: argparse.ArgumentParser) -> None:
    proposals_help = "store of proposals: read the candidates of images that are stored there, and add the others"
    parser.add_argument("--proposals", "--keep-candidates", type=Path, metavar="DIR", help=proposals_help)


def add_own_proposer(parser: argparse.ArgumentParser) -> None:
    """Add `--proposer`."""
    proposer_help = f"where candidates come from: {PROPOSER_HELP}; default: the model's own"
    parser.add_argument("--proposer", metavar="CONFIG_OR_NAME", help=proposer_help)


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add `--model` and `--device`."""
    model_help = (
        "shipped name, file, folder or hf://…; or public weights, which are downloaded at the first use: photos-fast, "
        "photos-small, photos-base, or a YAML file of that form (default: %(default)s)"
    )
    parser.add_argument("--model", default="ras", metavar="NAME_OR_PATH", help=model_help)
    add_device(parser)
