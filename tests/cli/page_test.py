#!/usr/bin/env python3
"""The page of `inspect --html` in Chromium: clicks, clusters, search, filters, colours, tables, evidence.

usage: page_test.py HALFSTEP MODEL [--screenshots DIR]
Exits with 77 where there is no Chromium.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import browser

DATA = re.compile(r'(<script id="data" type="application/json">)(.*?)(</script>)', re.S)


def page_of(halfstep, model, directory, *more):
    path = directory / "page.html"
    subprocess.run([halfstep, "inspect", model, "--html", path, *more], check=True, stdout=subprocess.DEVNULL)
    return path


def enlarged(path, count):
    """The page with its nodes repeated, cluster beside cluster, until there are `count`."""
    text = path.read_text()
    data = json.loads(DATA.search(text).group(2))
    nodes, clusters, edges = data["nodes"], data["clusters"], data["edges"]
    copies = -(-count // len(nodes))
    all_nodes, all_clusters, all_edges = [], [{"name": "", "items": []}], []
    for copy in range(copies):
        first, base = len(all_nodes), len(all_clusters)
        for node in nodes:
            shifted = {key: node[key] + first if node[key] >= 0 else -1 for key in ("into", "from")}
            all_nodes.append({**node, **shifted, "name": f"copy{copy}/{node['name']}"})
        for i, cluster in enumerate(clusters):
            items = [[item[0] + first if item[0] >= 0 else -(-item[0] + base), *item[1:]] for item in cluster["items"]]
            all_clusters.append({"name": cluster["name"] or f"copy{copy}", "items": items})
        all_clusters[0]["items"].append([-base, 0, 90 * copy, 170, 50])
        all_edges += [[a + first, b + first, cast] for a, b, cast in edges]
    data["nodes"], data["clusters"], data["edges"] = all_nodes, all_clusters, all_edges
    large = path.with_name("large.html")
    large.write_text(DATA.sub(lambda m: m.group(1) + json.dumps(data).replace("<", "\\u003c") + m.group(3), text))
    return large, len(all_nodes)


def expect(condition, what):
    if not condition:
        sys.exit("page_test: " + what)


class Page:
    def __init__(self, width=1400, height=850):
        self.browser = browser.Browser(width, height)
        self.run, self.click = self.browser.run, self.browser.click

    def count(self, selector):
        return self.run(f"document.querySelectorAll({json.dumps(selector)}).length")

    def text(self, selector):
        return self.run(f"document.querySelector({json.dumps(selector)}).textContent")

    def choose(self, select, value):
        self.run(f"(() => {{ const s = document.getElementById('{select}'); s.value = {json.dumps(value)}; s.dispatchEvent(new Event('change')); }})()")

    def search(self, words):
        self.run("document.getElementById('search').value = ''")
        self.click("document.getElementById('search')")
        self.browser.type(words)


def check_clicks(page, data):
    drawn = page.count("#nodes .node:not(.cluster)")
    expect(drawn > 0, "no node is drawn")
    page.click("document.querySelector('#nodes .node:not(.cluster) rect')")
    name = page.text("#panel h2")
    expect(any(node["name"] == name for node in data["nodes"]), f"a click on a node shows {name!r}")
    expect(page.count(".node.chosen") == 1, "one node is chosen")
    if page.count("#nodes .cluster"):
        before = page.count("#nodes .node")
        page.click("document.querySelector('#nodes .cluster rect')")
        expect(page.count("#nodes .node") != before, "a click opens a cluster")
    page.click("document.getElementById('close_all')")
    closed = page.count("#nodes .node")
    page.click("document.getElementById('open_all')")
    expect(page.count("#nodes .node") > closed or not any(item[0] < 0 for item in data["clusters"][0]["items"]), "all clusters open")
    expect(page.count("#nodes .cluster") == 0, "no cluster is closed")
    drawn = sum(item[0] >= 0 for cluster in data["clusters"] for item in cluster["items"])
    expect(page.count("#nodes .node") == drawn, "every node of the graph is drawn")
    overlaps = page.run("""(() => { const boxes = [...document.querySelectorAll('#nodes .node')].map((n) => n.getBoundingClientRect());
      let count = 0;
      for (let i = 0; i < boxes.length; ++i) for (let j = i + 1; j < boxes.length; ++j)
        count += boxes[i].left + 1 < boxes[j].right && boxes[j].left + 1 < boxes[i].right && boxes[i].top + 1 < boxes[j].bottom && boxes[j].top + 1 < boxes[i].bottom;
      return count; })()""")
    expect(overlaps == 0, f"{overlaps} pairs of boxes overlap")


def check_search_and_filters(page, data):
    words = next(node["name"] for node in data["nodes"] if node["fate"] == "computed")
    page.search(words)
    found = f"[...document.querySelectorAll('#list button')].find((b) => b.title === {json.dumps(words)})"
    expect(page.run(f"Boolean({found})"), "the search finds a node by its name")
    expect(page.count(".node.dim") > 0, "what does not match is dimmed")
    page.click(found)
    expect(page.text("#panel h2") == words, "a click in the list shows the node")
    page.search("nothing is called so")
    expect(page.count("#list button") == 0, "a search finds nothing")
    page.run("(() => { const s = document.getElementById('search'); s.value = ''; s.dispatchEvent(new Event('input')); })()")
    page.choose("by_type", "full")
    expect(page.count("#list button") > 0 and page.count("#list .dot:not(.full)") == 0, "the filter of types leaves f32")
    page.choose("by_type", "")
    page.choose("by_operator", data["nodes"][0]["operator"])
    expect(page.run(f"[...document.querySelectorAll('#list .operator')].every((o) => o.textContent === {json.dumps(data['nodes'][0]['operator'])})"), "the filter of operators")
    page.choose("by_operator", "")
    page.choose("by_reason", "contraction")
    expect(page.count("#list button") > 0, "the filter of reasons")
    page.choose("by_reason", "")


def check_colours_and_tables(page, data):
    for mode in ("time", "bytes", "flops", "kept", "forward_range", "backward_range"):
        page.choose("colour", mode)
        expect(page.count(".node.heated") > 0, f"nothing has a heat by {mode}")
    page.choose("colour", "precision")
    page.click("document.getElementById('tab_casts')")
    expect(page.count("#casts_view tbody tr") == len(data["casts"]), "every cast has a row")
    page.click("document.querySelectorAll('#casts_view th button')[6]")
    page.click("document.querySelectorAll('#casts_view th button')[6]")
    expect(page.run("document.querySelector('#casts_view tbody tr td:nth-child(7)').textContent") !=
           page.run("document.querySelector('#casts_view tbody tr:last-child td:nth-child(7)').textContent") or len(data["casts"]) < 2, "a table sorts")
    page.click("document.getElementById('tab_totals')")
    expect(not page.run("document.getElementById('totals_view').hidden"), "the totals show")
    page.click("document.getElementById('tab_graph')")
    before = page.run("getComputedStyle(document.body).backgroundColor")
    page.click("document.getElementById('theme')")
    expect(page.run("getComputedStyle(document.body).backgroundColor") != before, "the theme changes")
    page.click("document.getElementById('theme')")


def check_evidence(page, node):
    page.search(node)
    page.click(f"[...document.querySelectorAll('#list button')].find((b) => b.title === {json.dumps(node)})")
    text = page.text("#panel")
    expect("Measured, forward" in text and page.count("#panel .histogram rect") == 70, "the panel shows the evidence")
    expect("12.5%" in text and "25.0%" in text and "2.0%" in text, "the panel shows shares")
    page.click("document.getElementById('tab_doctor')")
    expect("<b>vanishes</b>" in page.text("#doctor_view") and page.count("#doctor_view tbody tr") == 1, "findings show, as text")
    page.click("document.getElementById('tab_graph')")
    page.run("(() => { const s = document.getElementById('search'); s.value = ''; s.dispatchEvent(new Event('input')); })()")


def times(page):
    """Milliseconds until a change is laid out."""
    measured = {}
    for what, script in {
            "search": "const s = document.getElementById('search'); s.value = 'mul'; s.dispatchEvent(new Event('input'));",
            "filter": "const s = document.getElementById('by_type'); s.value = 'full'; s.dispatchEvent(new Event('change'));",
            "colour": "const s = document.getElementById('colour'); s.value = 'time'; s.dispatchEvent(new Event('change'));",
            "choose": "document.querySelector('#nodes .node:not(.cluster)').dispatchEvent(new MouseEvent('click', {bubbles: true}));",
            "open all": "document.getElementById('close_all').click(); const t = performance.now(); document.getElementById('open_all').click(); document.body.getBoundingClientRect(); return performance.now() - t;",
    }.items():
        measured[what] = page.run(f"(() => {{ const begin = performance.now(); {script} document.body.getBoundingClientRect(); return performance.now() - begin; }})()")
    return measured


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("halfstep")
    parser.add_argument("model")
    parser.add_argument("--screenshots", type=pathlib.Path)
    arguments = parser.parse_args()
    if not browser.chromium():
        print("page_test: there is no chromium")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        plain = json.loads(DATA.search(page_of(arguments.halfstep, arguments.model, directory).read_text()).group(2))
        node = next(n["name"] for n in plain["nodes"] if n["fate"] == "computed")
        evidence = directory / "doctor.json"
        evidence.write_text(json.dumps({"more": 1, "tensors": [
            {"node": node, "direction": "forward", "low": {"underflow": 0.125, "overflow": 0}, "exponents": list(range(40)), "first_exponent": -30},
            {"node": node, "direction": "backward", "value": "gradient", "counted": 200, "underflow": 50, "max": "inf",
             "exponents": {"first": -60, "width": 2, "counts": list(range(30))}, "difference": {"relative_l2": 0.02}},
            {"node": node, "direction": "backward", "low": None}, {"unknown": True}, 7],
            "findings": [{"node": node, "kind": "underflow", "text": "<b>vanishes</b>", "direction": "backward"}, 7]}))
        path = page_of(arguments.halfstep, arguments.model, directory, "--evidence", evidence)
        data = json.loads(DATA.search(path.read_text()).group(2))
        page = Page()
        try:
            page.browser.open(path)
            if arguments.screenshots:
                page.browser.screenshot(arguments.screenshots / "first.png")
            check_clicks(page, data)
            check_search_and_filters(page, data)
            check_colours_and_tables(page, data)
            check_evidence(page, node)
            large, count = enlarged(path, 2000)
            page.browser.events.clear()
            page.browser.open(large)
            page.click("document.getElementById('open_all')")
            print(f"{count} nodes, {page.count('#nodes .node')} drawn:", ", ".join(f"{what} {ms:.0f} ms" for what, ms in times(page).items()))
            if arguments.screenshots:
                page.browser.screenshot(arguments.screenshots / "large.png")
            problems = page.browser.problems()
            expect(not problems, "; ".join(problems))
        finally:
            page.browser.close()
    print("page_test: passed")


if __name__ == "__main__":
    main()
