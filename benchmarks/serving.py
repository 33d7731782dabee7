"""The time that the server adds to an answer about a picture that was read already.

Each round asks one new prompt twice, in random order: `Model.answer` on the reading that the server keeps, and over
HTTP on the loopback interface, from the request to the parsed JSON. The difference is what the server adds.
"""

import argparse
import json
import random
import statistics
import threading
import time
from pathlib import Path

import httpx2
import uvicorn

import maskselect
from maskselect.serving.application import create_app
from maskselect.serving.run import bind
from maskselect.serving.settings import Settings


def quartiles(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"median {middle:.1f} ms, quartiles {low:.1f} and {high:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ras")
    parser.add_argument("--image", type=Path, default=Path("docs/example.png"))
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    model, settings = maskselect.load(options.model, device="cpu"), Settings(port=0)
    app = create_app(model, settings)
    bound = bind(settings)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, ws="none"))
    threading.Thread(target=lambda: server.run(sockets=[bound]), daemon=True).start()
    while not server.started:
        time.sleep(0.05)
    direct, served = [], []
    with httpx2.Client(base_url=f"http://127.0.0.1:{bound.getsockname()[1]}", timeout=600) as client:
        key = client.post("/api/pictures", content=options.image.read_bytes()).json()["id"]
        picture = app.state.server.pictures.get(key).picture

        def over_http(text: str) -> None:
            response = client.post(f"/api/pictures/{key}/answers", json={"prompts": [{"text": text}]})
            json.loads(response.content)["answers"][0]["scores"]

        def alone(text: str) -> None:
            model.answer(picture, [text])

        for number in range(-3, options.rounds):  # three rounds to warm up
            calls = [(direct, alone), (served, over_http)]
            random.shuffle(calls)
            for times, call in calls:
                began = time.perf_counter()
                call(f"the red leaves {number}")
                if number >= 0:
                    times.append(1000 * (time.perf_counter() - began))
    server.should_exit = True
    print(f"{options.model}, {options.rounds} rounds")
    print(f"  model alone: {quartiles(direct)}")
    print(f"  served: {quartiles(served)}")
    print(f"  difference: {quartiles([b - a for a, b in zip(direct, served, strict=True)])}")


if __name__ == "__main__":
    main()
