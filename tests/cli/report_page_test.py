#!/usr/bin/env python3
"""The page of `report` in Chromium: curves, epochs, confusion, precision and configuration of a run.

usage: report_page_test.py HALFSTEP MODEL [--screenshots DIR]
Exits with 77 where there is no Chromium, or Python has no numpy.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import browser
from page_test import DATA, Page, expect

try:
    import numpy as np
except ImportError:
    sys.exit(77)

NAMES = ["top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "</script><b>boot"]


def train(halfstep, model, directory):
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, 256)
    images = random.random((256, 1, 28, 28), dtype=np.float32) + (np.arange(28)[None, :] < labels[:, None] * 2.8).astype(np.float32)[:, None, None, :]
    np.savez(directory / "d.npz", images=images, labels=labels)
    (directory / "names.txt").write_text("\n".join(NAMES) + "\n")
    run = directory / "run"
    subprocess.run([halfstep, "train", model, "--data", directory / "d.npz", "--test_data", directory / "d.npz", "--batch", "16", "--epochs", "6", "--momentum", "0.9", "--learning_rate", "0.02",
                    "--schedule", "cosine", "--measures", "f1,auc,confusion", "--per_class", "true", "--class_names", directory / "names.txt", "--layer_times", "true", "--device", "cpu", "--out", run, "--json"], check=True, stdout=subprocess.DEVNULL)
    return run


def check(page, data):
    epochs = data["epochs"]
    expect(page.text("#facts b") == str(len(epochs)) == "6", "the epochs are counted")
    expect(page.count("#curves_view .chart.wide polyline") == 3, "the loss of steps, epochs and held-out data")
    titles = page.run("[...document.querySelectorAll('#curves_view .chart b')].map((b) => b.textContent)")
    for title in ("Loss", "accuracy", "f1", "auc", "learning rate", "loss scale"):
        expect(title in titles, f"there is a curve of {title}, among {titles}")
    plot = "document.querySelector('#curves_view .chart.wide svg')"
    page.run(f"{plot}.dispatchEvent(new MouseEvent('mousemove', {{clientX: {plot}.getBoundingClientRect().x + 300, clientY: 200, bubbles: true}}))")
    expect(page.text("#readout").startswith("step ") and "held out" in page.text("#readout"), "the curves are read out")
    page.click("document.getElementById('tab_epochs')")
    expect(page.count("#epochs_view tbody tr") == 6, "a row for each epoch")
    page.click("document.getElementById('tab_classes')")
    expect(page.count("#classes_view .matrix rect") == 100, "the confusion matrix has every cell")
    counts = sum(map(sum, epochs[-1]["test_confusion"]))
    expect(counts == 256, "and every sample")
    expect("</script><b>boot" in page.run("document.querySelector('#classes_view').textContent"), "names are text, whatever they hold")
    page.click("document.getElementById('tab_precision')")
    expect(page.count("#precision_view tbody tr") > 8 and "write f16" in page.text("#precision_view p"), "precision of each node")
    page.click("document.getElementById('tab_layers')")
    rows = data["layers"]["layers"]
    expect(page.count("#layers_view tbody tr") == len(rows) > 8, "a row for each layer")
    shares = page.run("[...document.querySelectorAll('#layers_view tbody td:nth-child(2)')].map((cell) => parseFloat(cell.textContent))")
    expect(shares == sorted(shares, reverse=True) and abs(sum(shares) - 100) < 1, f"by share, of 100 % together, not {shares}")
    names = page.run("document.querySelector('#layers_view tbody').textContent")
    expect(any(row["layer"] and row["layer"] in names for row in rows), "under the model's names")
    expect(page.count("#layers_view rect.forward") > 2 and page.count("#layers_view rect.backward") > 2, "with a bar for forward and backward")
    page.click("document.getElementById('tab_recipe')")
    expect("momentum" in page.text("#recipe"), "the recipe")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("halfstep"), parser.add_argument("model")
    parser.add_argument("--screenshots", type=pathlib.Path)
    options = parser.parse_args()
    if browser.chromium() is None:
        sys.exit(77)
    with tempfile.TemporaryDirectory() as name:
        run = train(options.halfstep, options.model, pathlib.Path(name))
        subprocess.run([options.halfstep, "report", run], check=True, stderr=subprocess.DEVNULL)
        path = run / "report.html"
        data = json.loads(DATA.search(path.read_text()).group(2))
        page = Page()
        try:
            page.browser.open(path)
            if options.screenshots:
                page.browser.screenshot(options.screenshots / "report_curves.png")
            check(page, data)
            for view in ("classes", "precision", "layers") if options.screenshots else ():
                page.click(f"document.getElementById('tab_{view}')")
                page.browser.screenshot(options.screenshots / f"report_{view}.png")
            page.click("document.getElementById('theme')")
            problems = page.browser.problems()
            expect(not problems, f"the browser has nothing to say, not {problems}")
        finally:
            page.browser.close()


main()
