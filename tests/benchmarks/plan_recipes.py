"""How long it takes to go through the published recipes on paper, reading them included."""

import statistics
import time

from dataeff.composition import Plan
from dataeff.migration import recipe, recipes
from tests.benchmarks.record import write

REPEATS = 5


def main() -> None:
    """Time each recipe, print the table, write the JSON."""
    figures = {}
    for name in recipes():
        seconds = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            found = Plan.from_config(recipe(name)).predict()
            seconds.append(time.perf_counter() - began)
        figures[name] = {
            "steps": found.steps,
            "tokens": found.counts["tokens"],
            "layer_tokens": found.counts["layer_tokens"],
            "seconds": statistics.median(seconds),
        }
        print(f"{name:32} {found.steps:>10,} steps  {figures[name]['seconds']:.3f} s")
    write("plan_recipes", figures)


if __name__ == "__main__":
    main()
