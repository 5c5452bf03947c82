#!/usr/bin/env python3
"""The page of `doctor --html` in Chromium: findings, loss curves, divergence, histograms, search, filters, remedy.

usage: doctor_page_test.py HALFSTEP MODEL [--screenshots DIR]
Exits with 77 where there is no Chromium.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import browser
from page_test import DATA, Page, expect

# Static scaling by a scale that is too large: gradients overflow.
FAULT = ["--random", "4", "--batch", "4", "--loss_scale", "fixed", "--initial_scale", "16777216"]


def page_of(halfstep, model, directory, keys, code):
    path = directory / "page.html"
    done = subprocess.run([halfstep, "doctor", model, *keys, "--html", path, "-o", directory / "made.policy.toml"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    expect(done.returncode == code, f"doctor ends with {done.returncode}: {done.stderr[-300:]}")
    return path


def enlarged(path, count):
    """The page with its tensors repeated, names and all, until there are `count`."""
    text = path.read_text()
    data = json.loads(DATA.search(text).group(2))
    rows, names, size = data["tensors"], data["names"], len(data["names"])
    copies = -(-count // len(rows))
    data["names"] = [f"copy{c}/{name}" for c in range(copies) for name in names]
    data["tensors"] = [[row[0] + c * size, row[1], row[2] + c * size, row[3], *row[4:12], [i + c * len(rows) for i in row[12]]] for c in range(copies) for row in rows]
    large = path.with_name("large.html")
    large.write_text(DATA.sub(lambda m: m.group(1) + json.dumps(data, separators=(",", ":")).replace("<", "\\u003c") + m.group(3), text))
    return large, len(data["tensors"])


def clear_search(page):
    page.run("(() => { const s = document.getElementById('search'); s.value = ''; s.dispatchEvent(new Event('input')); })()")


def check_findings(page, data):
    expect(page.count(".causes li") == len(data["findings"]) > 0, "every finding is listed")
    expect(page.text(".causes li .kind") == data["findings"][0]["kind"], "the first cause stands first")
    expect(page.count("#findings_view .plot .fp32") == 1 and page.count("#findings_view .plot .band") == 1, "the curve of fp32 and its band")
    expect(page.count("#findings_view .plot .after") == 1, "the curve of the run that proves the remedy")
    cause = next(f for f in data["findings"] if f["tensor"] >= 0)
    expect(page.text("#panel .warning").startswith(cause["kind"]), "the panel opens with the first cause")
    plot = "document.querySelector('#findings_view svg.plot')"
    page.run(f"{plot}.dispatchEvent(new MouseEvent('mousemove', {{clientX: {plot}.getBoundingClientRect().x + 80, clientY: 200, bubbles: true}}))")
    expect(page.text("#readout").startswith("step 1: fp32 "), "the curves are read out")


def check_tensors(page, data):
    total = len(data["tensors"])
    page.click("document.getElementById('tab_divergence')")
    drawn = page.count("#divergence_view circle.point")
    expect(drawn == sum(row[11] is not None for row in data["tensors"]), f"{drawn} tensors are drawn by their distance")
    page.click("document.querySelectorAll('#divergence_view circle.point')[2]")
    expect(page.count("#divergence_view .point.chosen") == 1, "a click on a point chooses its tensor")
    title = page.text("#panel h2")
    page.choose("by_kind", "backward")
    rows = sum(row[1] == "backward" for row in data["tensors"])
    expect(page.text("#count").startswith(f"{rows:,} of {total:,}"), "the filter of kinds")
    expect(page.count("#divergence_view .point.dim") == drawn - rows, "what does not match is dimmed")
    page.choose("by_kind", "")
    page.choose("by_sign", "differs")
    expect(0 < page.count("#list button") < total, "the filter of signs")
    page.choose("by_order", "distance")
    page.choose("by_sign", "")
    shown = page.run("[...document.querySelectorAll('#list .type')].map((e) => e.textContent)")
    numbers = [float("inf") if text in ("inf", "nan") else float(text.rstrip("%").replace("–", "0")) for text in shown]
    expect(numbers == sorted(numbers, reverse=True), "the list is ordered by distance")
    page.choose("by_order", "computed")
    name = data["names"][data["tensors"][0][2]]
    page.search(name)
    expect(0 < page.count("#list button") < total, "the search finds a tensor by its name")
    page.click("document.querySelector('#list button')")
    expect(name in page.text("#panel h2") and page.text("#panel h2") != "" and title != "", "a click in the list shows the tensor")
    page.click("document.getElementById('tab_exponents')")
    expect(page.count("#exponents_view .card") == page.count("#list button"), "a histogram for each that matches")
    expect(page.count("#exponents_view .card .beyond") > 0 and page.count("#exponents_view .card rect.low") > 0 and page.count("#exponents_view .card rect.full") > 0,
           "histograms show both runs and the type's range")
    page.search("nothing is called so")
    expect(page.count("#list button") == 0 and page.count("#exponents_view .card") == 0, "a search finds nothing")
    clear_search(page)


def check_remedy(page, data):
    page.click("document.getElementById('tab_remedy')")
    expect(data["outcome"] in page.text("#remedy_view"), "the outcome is told")
    expect(page.text("#policy") == data["policy"]["text"] and "version = 1" in data["policy"]["text"], "the policy file stands there as it is")
    before = page.run("getComputedStyle(document.body).backgroundColor")
    page.click("document.getElementById('theme')")
    expect(page.run("getComputedStyle(document.body).backgroundColor") != before, "the theme changes")
    page.click("document.getElementById('theme')")
    page.click("document.getElementById('tab_findings')")


def times(page):
    """Milliseconds until a change is laid out."""
    measured = {}
    for what, script in {
            "search": "const s = document.getElementById('search'); s.value = 'copy1'; s.dispatchEvent(new Event('input'));",
            "filter": "const s = document.getElementById('by_kind'); s.value = 'forward'; s.dispatchEvent(new Event('change'));",
            "choose": "document.querySelector('#divergence_view circle.point').dispatchEvent(new MouseEvent('click', {bubbles: true}));"}.items():
        measured[what] = page.run(f"(() => {{ const begin = performance.now(); {script} document.body.getBoundingClientRect(); return performance.now() - begin; }})()")
    return measured


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("halfstep")
    parser.add_argument("model")
    parser.add_argument("--screenshots", type=pathlib.Path)
    arguments = parser.parse_args()
    if not browser.chromium():
        print("doctor_page_test: there is no chromium")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        path = page_of(arguments.halfstep, arguments.model, directory, FAULT, 4)
        data = json.loads(DATA.search(path.read_text()).group(2))
        page = Page()

        def screenshot(of):
            if arguments.screenshots:
                page.browser.screenshot(arguments.screenshots / f"doctor_{of}.png")

        try:
            page.browser.open(path)
            screenshot("findings")
            check_findings(page, data)
            check_tensors(page, data)
            for view in ("divergence", "exponents", "remedy"):
                page.click(f"document.getElementById('tab_{view}')")
                screenshot(view)
            check_remedy(page, data)
            large, count = enlarged(path, 2000)
            expect(large.stat().st_size < 3e6, f"a page of {count} tensors has {large.stat().st_size} bytes")
            page.browser.events.clear()
            page.browser.open(large)
            page.click("document.getElementById('tab_divergence')")
            print(f"{count} tensors, {large.stat().st_size / 1e6:.1f} MB:", ", ".join(f"{what} {ms:.0f} ms" for what, ms in times(page).items()))
            healthy = page_of(arguments.halfstep, arguments.model, directory, ["--random", "2", "--batch", "4"], 0)
            page.browser.open(healthy)
            expect("Healthy" in page.text("#findings_view") and page.count(".causes") == 0, "a healthy training has no findings")
            problems = page.browser.problems()
            expect(not problems, "; ".join(problems))
        finally:
            page.browser.close()
    print("doctor_page_test: passed")


if __name__ == "__main__":
    main()
