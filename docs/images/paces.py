"""Plot the paces of docs/pacing.md: `python docs/images/paces.py` writes paces.png beside this file."""

from pathlib import Path

from matplotlib.figure import Figure

from dataeff import pacing

STEPS = 100
SMOOTH = {
    "linear": pacing.linear(64, 2048, steps=STEPS),
    "root, degree=2": pacing.root(64, 2048, steps=STEPS, degree=2),
    "exponential": pacing.exponential(64, 2048, steps=STEPS),
    "cosine": pacing.cosine(64, 2048, steps=STEPS),
}
STAIRS = {
    "discrete": pacing.discrete([64, 512, 1024, 2048], until=[19, 49, 79]),
    "root, multiple=256": pacing.root(64, 2048, steps=STEPS, multiple=256),
}


def plot(path: Path) -> None:
    """Write the PNG."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    smooth, stairs = figure.subplots(1, 2, sharey=True)
    steps = range(STEPS + 21)
    for name, pace in SMOOTH.items():
        smooth.plot(steps, [pace(step) for step in steps], label=name)
    for (name, pace), color in zip(STAIRS.items(), ("tab:purple", "tab:brown"), strict=True):
        stairs.step(steps, [pace(step) for step in steps], where="post", label=name, color=color)
    smooth.set(title="Along a curve", ylabel="amount")
    stairs.set(title="In stairs")
    for axes in (smooth, stairs):
        axes.set(xlabel="step", xlim=(0, steps[-1]), ylim=(0, 2150))
        axes.axvline(STEPS, color="0.6", linewidth=1, linestyle=":", zorder=0)  # where the paces end
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="lower right", framealpha=1, edgecolor="none")
    figure.savefig(path, dpi=130, metadata={"Software": None})


if __name__ == "__main__":
    plot(Path(__file__).with_suffix(".png"))
