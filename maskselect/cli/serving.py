"""The command `serve`."""

import argparse
import os

from maskselect.backends.optional import require
from maskselect.cli import loading
from maskselect.cli.options import add_model, add_own_proposer, add_refiner
from maskselect.cli.parsing import Parser, positive


def serve_parser(prog: str) -> argparse.ArgumentParser:
    """Options of `serve`."""
    description = (
        "Serve a page on which you open, point and ask, and X-AnyLabeling's remote protocol. Other machines reach it "
        "only with another --host and a token in the environment variable MASKSELECT_TOKEN."
    )
    parser = Parser(prog=prog, description=description)
    host_help = "address to listen on (default: %(default)s, which only this machine reaches)"
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help=host_help)
    port_help = "0 takes a free one (default: %(default)s)"
    parser.add_argument("--port", type=port, default=7860, metavar="N", help=port_help)
    upload_help = "largest upload (default: %(default)s)"
    parser.add_argument("--upload-mib", type=positive, default=32, metavar="MIB", help=upload_help)
    megapixels_help = "largest picture in millions of pixels (default: %(default)s)"
    parser.add_argument("--megapixels", type=positive, default=50, metavar="N", help=megapixels_help)
    frames_help = "most frames of a video (default: %(default)s)"
    parser.add_argument("--frames", type=positive, default=300, metavar="N", help=frames_help)
    seconds_help = "longest time of a request, waiting included (default: %(default)s)"
    parser.add_argument("--seconds", type=positive, default=120, metavar="S", help=seconds_help)
    clip_help = "longest time of prompts about a video (default: %(default)s)"
    parser.add_argument("--clip-seconds", type=positive, default=900, metavar="S", help=clip_help)
    waiting_help = "most requests that wait for the model (default: %(default)s)"
    parser.add_argument("--waiting", type=positive, default=64, metavar="N", help=waiting_help)
    pictures_help = "number of pictures whose readings are kept in memory (default: %(default)s)"
    parser.add_argument("--pictures", type=positive, default=8, metavar="N", help=pictures_help)
    add_refiner(parser)
    add_own_proposer(parser)
    add_model(parser)
    parser.set_defaults(proposals=None)
    return parser


def port(text: str) -> int:
    """A number of a port."""
    value = int(text)
    if not 0 <= value < 65536:
        raise argparse.ArgumentTypeError(f"{text} is no port; expected 0 to 65535")
    return value


def serve(options: argparse.Namespace) -> int:
    """Serve until a signal stops it. Extra, token and port are checked before the model is loaded."""
    for package in ("fastapi", "uvicorn"):
        require(package, "serve")
    from maskselect.serving.run import bind, run
    from maskselect.serving.settings import Settings

    settings = Settings(
        host=options.host,
        port=options.port,
        token=os.environ.get("MASKSELECT_TOKEN") or None,
        upload_mib=options.upload_mib,
        megapixels=options.megapixels,
        frames=options.frames,
        seconds=options.seconds,
        clip_seconds=options.clip_seconds,
        waiting=options.waiting,
        pictures=options.pictures,
    )
    with bind(settings) as bound:
        run(loading.load_model(options), settings, bound)
    return 0
