"""The model that the notebooks share, and the training panel."""

import contextlib
import html
import itertools
import shutil
import textwrap
import threading
from pathlib import Path

import ipywidgets
import pandas as pd
from IPython import get_ipython
from ipywidgets import HTML, Button, HBox, Layout, VBox, Widget
from matplotlib.figure import Figure

from sbirlib.config import Config, Knob, knobs
from sbirlib.data.pairs import PairFolder
from sbirlib.figures import message, training_curves
from sbirlib.methods.base import Method
from sbirlib.panels.base import STYLE, Panel, Status
from sbirlib.runs import EpochRecord, Run
from sbirlib.training import Stop, train


def load_or_train(pairs: PairFolder | str | Path, config: Config, *, out: str | Path) -> Method:
    """The model of run `out`; where there is none yet, it is trained first, and each epoch printed.

    A run that was stopped early is used as it is, with a message. A run that has not finished an epoch is
    replaced. Raises what `train` and `load_run` raise.
    """
    run = Run(out)
    if not run.folder(run.chosen).is_dir():
        print(f"{out} holds no run yet: training one, {config.run.epochs} epochs", flush=True)
        for record in train(pairs, config, out=out, overwrite=True):
            print(record, flush=True)
    model = run.model()
    if run.epochs < model.config.run.epochs:
        stopped = f"{out} was stopped after epoch {run.epochs} of {model.config.run.epochs}"
        resume = f"`python -m sbirlib train --out {out} --resume` goes on"
        print(f"{stopped}: this is what it has so far; {resume}")
    return model


class TrainPanel(Panel):
    """Every hyper-parameter, a Train and a Stop button, and the curves as they grow."""

    def __init__(self, pairs: PairFolder, config: Config, out: str | Path) -> None:
        self.pairs, self.out = pairs, Path(out)
        self.records: list[EpochRecord] = []
        self.folder: Path | None = None
        self.error: Exception | None = None
        self._thread: threading.Thread | None = None
        self._stop = Stop()
        found = list(knobs(config.updated({"data.root": str(pairs.root)})))
        self.controls = {knob.name: _control(knob) for knob in found}
        for fixed in ("data.root", "method"):  # which the panel was made for
            self.controls[fixed].disabled = True
        groups = {head: [n for n in self.controls if n.startswith(f"{head}.")] for head in config.groups}
        groups["model"].insert(0, "method")
        own = [name for group in ("loss", config.method) for name in groups.get(group, ())]
        self.most_used = ["run.epochs", "optim.lr", "optim.batch_size", *own]
        helps = {knob.name: knob.help + (f" [{knob.unit}]" if knob.unit else "") for knob in found}
        pages = []
        for shown in (self.most_used, *groups.values()):
            rows = [HBox([self.controls[name], HTML(html.escape(helps[name]))]) for name in shown]
            pages.append(VBox(rows, layout=Layout(max_height="28em", overflow="auto")))
        self.settings = ipywidgets.Tab(pages, titles=["most used", *groups])
        self.train_button = Button(description="Train", icon="play", button_style="success")
        self.stop_button = Button(description="Stop", icon="stop", disabled=True)
        self.train_button.on_click(lambda _: self.start())
        self.stop_button.on_click(lambda _: self.stop())
        self.status = Status()
        buttons = HBox([self.train_button, self.stop_button])
        super().__init__(self.settings, buttons, self.status, controls=map(self.controls.get, self.most_used))

    @property
    def config(self) -> Config:
        """The configuration that the controls describe. Raises ConfigError."""
        return Config().updated({name: control.value for name, control in self.controls.items()})

    @property
    def history(self) -> dict[str, list[float]]:
        """The columns of history.csv, one value for each epoch so far."""
        return pd.DataFrame(record.as_row() for record in self.records).to_dict("list")

    @property
    def running(self) -> bool:
        """Whether a training is under way."""
        return self._thread is not None and self._thread.is_alive()

    def figure(self) -> Figure:
        """The curves so far, or before the first epoch the settings in words."""
        if self.records:
            return training_curves(self.history)
        values = ", ".join(f"{name} = {self.controls[name].value}" for name in self.most_used)
        return message(f"No epoch yet.\n{textwrap.fill(values, 100)}")

    def start(self) -> None:
        """What the Train button does; says so in the panel if a training is under way."""
        if self.running:
            self.status.say("A training is under way: press Stop first.", alert=True)
            return
        self.folder = self._new_folder()
        self.records, self.error, self._stop = [], None, Stop()
        self.train_button.disabled, self.stop_button.disabled = True, False
        self.status.say("Reading the pictures and building the model ...")
        self.refresh()
        self._thread = threading.Thread(target=self._work, name="training", daemon=True)
        self._thread.start()

    def _new_folder(self) -> Path:
        """The first free `run-NN`, made at once, so that another panel takes another."""
        for number in itertools.count(1):
            folder = self.out / f"run-{number:02d}"
            with contextlib.suppress(FileExistsError):
                folder.mkdir(parents=True)
                return folder

    def stop(self) -> None:
        """What the Stop button does: ends the training after the epoch that runs."""
        if self.running:
            self._stop.ask()
            self.status.say(f"Stopping after epoch {len(self.records) + 1} ...")

    def finish(self) -> Path:
        """Waits for the training, prints its epochs, and returns the run folder.

        Starts one first if the panel has trained nothing yet. An interrupt of the kernel acts as Stop,
        whose click a kernel that waits here may hear too late. Raises what the training raised.
        """
        if self._thread is None or (self.error is not None and not self.running):
            self.start()
        while self.running:
            try:
                self._thread.join(timeout=0.2)
            except KeyboardInterrupt:
                self.stop()
        for record in self.records:
            print(record, flush=True)
        if self.error is not None:
            raise self.error
        return self.folder

    def _work(self) -> None:
        # Keeps this thread's progress bars out of whichever cell is running; the panel shows progress.
        publisher = getattr(get_ipython(), "display_pub", None)
        if hasattr(publisher, "register_hook"):
            publisher.register_hook(lambda message: None)
        self.error = self.status.attempt(self._train)
        if self.error is not None and not Run(self.folder).present:
            shutil.rmtree(self.folder, ignore_errors=True)  # made for nothing
        self.train_button.disabled, self.stop_button.disabled = False, True

    def _train(self) -> None:
        config = self.config
        with contextlib.closing(train(self.pairs, config, out=self.folder, stop=self._stop)) as epochs:
            for record in epochs:
                self.records.append(record)
                self.refresh()
                self.status.say(f"{record} (of {config.run.epochs})")
        word = "Stopped" if len(self.records) < config.run.epochs else "Done"
        self.status.say(f"{word} after epoch {len(self.records)}. The run is in {self.folder}")


def _control(knob: Knob) -> Widget:
    """The control that fits a hyper-parameter's kind; a value out of its limits is refused by Train."""
    label, size = knob.name.rpartition(".")[2], Layout(width="22em")
    common = dict(value=knob.default, description=label, tooltip=knob.help, style=STYLE, layout=size)
    if knob.choices:
        return ipywidgets.Dropdown(options=knob.choices, **common)
    if isinstance(knob.default, tuple):
        several = ipywidgets.FloatsInput if "float" in str(knob.kind) else ipywidgets.IntsInput
        return several(**common | {"value": list(knob.default)}, min=0)
    kinds = {bool: ipywidgets.Checkbox, int: ipywidgets.IntText, float: ipywidgets.FloatText}
    return kinds.get(knob.kind, ipywidgets.Text)(**common)
