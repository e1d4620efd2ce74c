"""The training's loss and the held-out loss by step, as one small picture."""

from pathlib import Path

from llm_assets.workers import training_log

TRAIN_COLOUR = "#2563eb"
HELD_OUT_COLOUR = "#ea580c"


def draw(path: Path, history: training_log.History, title: str) -> None:
    """Writes a PNG of some 20 kB; the same history gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.8), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    trained = training_log.losses(history)
    held_out = training_log.eval_losses(history)
    if trained:
        axes.plot(*zip(*trained, strict=True), color=TRAIN_COLOUR, linewidth=1.6, label="training loss")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), color=HELD_OUT_COLOUR, marker="o", label="held-out loss")
        last = held_out[-1]
        axes.annotate(f"{last[1]:.3f}", last, xytext=(0, 7), textcoords="offset points", ha="right")
    axes.set(title=title, xlabel="step", ylabel="loss")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if trained or held_out:
        axes.legend(frameon=False)
    figure.savefig(path, metadata={"Software": None})
