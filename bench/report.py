"""What came out: medians, the bounds that the data path is held to, tables and a plot."""
import json
import statistics

from cases import CASES
from machine import GIB, MIB, machine, say
from tools import CLEAR


def median(runs, key):
    values = [key(one) for one in runs]
    return statistics.median(values) if values and None not in values else None


def summary(result):
    # Of a disk without data, by GiB of the disk.
    gib = (result["data"] or result["logical"]) / GIB
    rows = {}
    for tool, measured in result["tools"].items():
        runs = measured["runs"]
        if not runs or "failed" in measured:
            rows[tool] = {"failed": measured.get("failed", "no run")}
            continue
        rows[tool] = {
            "wall": median(runs, lambda one: one["wall"]), "wire": median(runs, lambda one: one["wire"]),
            "sent": median(runs, lambda one: one["sent"]),
            "cpu": [median(runs, lambda one, side=side: one["cpu"][side]) for side in (0, 1)],
            "cpu_per_gib": [median(runs, lambda one, side=side: one["cpu"][side] / gib) for side in (0, 1)],
            "memory": [max(one["memory"][side] for one in runs) for side in (0, 1)],
            "spread": [min(one["wall"] for one in runs), max(one["wall"] for one in runs)], "note": runs[-1].get("note", ""),
        }
    return rows


def bounds(results):
    """What the data path is held to: a sentence, the figure, the bound, and whether it is met."""
    tables = {result["case"]: (result, summary(result)) for result in results}
    found = []

    def hold(what, figure, bound, at_least=True):
        if figure is not None:
            found.append({"what": what, "figure": figure, "bound": bound, "met": figure >= bound if at_least else figure <= bound, "at_least": at_least})

    def wall(case, tool):
        return tables.get(case, (None, {}))[1].get(tool, {}).get("wall")

    def over(case, tools, best=min):
        ours, theirs = wall(case, "wherry"), [value for value in (wall(case, tool) for tool in tools) if value]
        return best(theirs) / ours if ours and theirs else None

    for case in ("realistic", "random"):
        hold(f"{case}: times as fast as the best of nbdcopy and qemu-img over TLS", over(case, ["nbdcopy TLS", "qemu-img TLS"]), 3)
        hold(f"{case}: times as fast as the best of them in clear text", over(case, ["nbdcopy", "qemu-img"]), 0.75)
    hold("disk: times as fast as the best encrypted tool", over("disk", ["nbdcopy TLS", "qemu-img TLS", "rsync ssh", "dd zstd ssh"]), 2)
    hold("zeros: seconds for 8 TiB of nothing", wall("zeros", "wherry"), 10, at_least=False)
    for link, rate in (("link-1gbit", 1e9), ("link-100mbit", 1e8)):
        hold(f"{link}: times as fast as nbdcopy", over(link, ["nbdcopy"]), 2)
        hold(f"{link}: times as fast as rsync -z", over(link, ["rsync -z"]), 1)
        result, rows = tables.get(f"{link}-noise", (None, {}))
        for tool, row in rows.items():
            if row.get("sent"):
                # Whole frames that the sender has sent: of 1514 bytes 1448 are payload at most.
                hold(f"{link}: part of the link that {tool} fills", row["sent"] * 8 / row["wall"] / rate, 0.95)
    result, rows = tables.get("rescan", (None, {}))
    if rows.get("wherry", {}).get("wire"):
        hold("rescan: bytes on the wire by bytes of data, in %", 100 * rows["wherry"]["wire"] / result["data"], 2, at_least=False)
        hold("rescan: times as fast as the best of rsync", over("rescan", ["rsync", "rsync -z", "rsync ssh"]), 1)
    memory = [side for result, rows in tables.values() for tool, row in rows.items() if tool.startswith("wherry") for side in row.get("memory", [])]
    hold("MiB of memory of the larger side, at most", max(memory) / MIB if memory else None, 256, at_least=False)
    return found


def table(result):
    rows = summary(result)
    ours = rows.get("wherry", {}).get("wall")
    place = "in memory" if result["in_memory"] else "on the disk's file system"
    rounds = max(len(measured["runs"]) for measured in result["tools"].values())
    lines = [f"## {result['title']}", "", f"{result['logical'] / GIB:.1f} GiB, {result['data'] / 1e9:.2f} GB of data, source and target {place}. "
             f"{rounds} rounds, {result['when']}, {result['wherry']}, load {result['load']} at the start.", "",
             "| tool | wall s | min–max | CPU s / GiB, sender | receiver | wire MB | peak MiB s / r | our speed over its |",
             "|---|---|---|---|---|---|---|---|"]
    for tool, row in rows.items():
        name = f"{tool} (clear text)" if tool in CLEAR else tool
        if "failed" in row:
            lines.append(f"| {name} | {row['failed']} | | | | | | |")
            continue
        wire = "" if row["wire"] is None else f"{row['wire'] / 1e6:.1f}"
        ratio = f"{row['wall'] / ours:.2f}" if ours else ""
        low, high = row["spread"]
        lines.append(f"| {name} | {row['wall']:.2f} | {low:.2f}–{high:.2f} | {row['cpu_per_gib'][0]:.2f} | {row['cpu_per_gib'][1]:.2f} | {wire} "
                     f"| {row['memory'][0] >> 20} / {row['memory'][1] >> 20} | {ratio} |")
    notes = [f"`{tool}` went over {row['note']}." for tool, row in rows.items() if row.get("note") and tool == "wherry"]
    return "\n".join([*lines, "", *notes])


def plot(results):
    """Bars of wall time, a panel for each case, as SVG."""
    bar, gap, left, width = 18, 6, 170, 760
    parts, y = [], 20
    for result in results:
        rows = {tool: row["wall"] for tool, row in summary(result).items() if "wall" in row}
        if not rows:
            continue
        longest = max(rows.values())
        parts.append(f'<text x="10" y="{y + 14}" class="title">{result["title"]}</text>')
        y += 28
        for tool, wall in sorted(rows.items(), key=lambda row: row[1]):
            length = max(1, (width - left - 90) * wall / longest)
            kind = "ours" if tool.startswith("wherry") else "clear" if tool in CLEAR else "theirs"
            parts.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{tool}</text>')
            parts.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar}" class="{kind}"/>')
            parts.append(f'<text x="{left + length + 6:.1f}" y="{y + 13}">{wall:.2f} s</text>')
            y += bar + gap
        y += 18
    style = ("text{font:12px sans-serif;fill:#222}.title{font-weight:bold;font-size:14px}.ours{fill:#1f77b4}.theirs{fill:#bbb}"
             ".clear{fill:#ddd;stroke:#999;stroke-dasharray:3}")
    legend = f'<text x="10" y="{y + 12}">Wall time, less is better. Blue: Wherry. Grey: encrypted tools. Dashed: clear text.</text>'
    body = "\n".join([*parts, legend])
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y + 24}"><style>{style}</style>'
            f'<rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n')


def write(folder, results, arguments):
    """Adds what was measured to what lies in the folder: a case that was measured again takes the place of its older figures."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "results.json"
    before = json.loads(kept.read_text())["cases"] if kept.exists() and not arguments.quick else []
    known = {result["case"]: result for result in [*before, *results]}
    results = [known[name] for name in CASES if name in known]
    about = machine()
    # Small disks measure how a tool begins and ends, which is not what the bounds are about.
    held = [] if arguments.quick else bounds(results)
    lines = ["# Data path: measurements", "", "Written by `make bench`. Medians of interleaved rounds; every target compared with its source. Wall time is that of the client's process, "
             "from its start to its end; for `wherry bench transfer` it holds the start of both sides. CPU is user and system time by GiB of data, children included. Wire is what the "
             "network sent, headers and both directions. `local copy` is `qemu-img convert` without a network: what reading and writing these disks takes by itself." + (" **Small disks (`--quick`): these figures only show that the bench works.**" if arguments.quick else ""), "",
             "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in about.items()), ""]
    if held:
        lines += ["## Bounds", "", "| | measured | bound | |", "|---|---|---|---|"]
        lines += [f"| {one['what']} | {one['figure']:.2f} | {'≥' if one['at_least'] else '≤'} {one['bound']} | {'met' if one['met'] else '**missed**'} |" for one in held]
        lines += [""]
    lines += ["![Wall times](plot.svg)", "", *(table(result) + "\n" for result in results)]
    (folder / "table.md").write_text("\n".join(lines))
    (folder / "plot.svg").write_text(plot(results))
    kept.write_text(json.dumps({"quick": arguments.quick, "machine": about, "bounds": held, "cases": results}, indent=1) + "\n")
    say(f"written: {folder}/table.md, plot.svg, results.json")
    for one in held:
        say(f"{'met   ' if one['met'] else 'MISSED'} {one['what']}: {one['figure']:.2f}, bound {one['bound']}")
