"""What compare.py measured, for people."""

import statistics


def progress(measured):
    times = measured.get("times_nginx")
    return (
        f"{measured['scenario']:7} round {measured['round']} {measured['gateway']:9}"
        f" {measured['requests_per_second']:8.0f} req/s"
        f"  {measured['cpu_us_per_request']:6.1f} us/request{f' = {times:.2f} x nginx' if times else '':18}"
        f"  {measured['peak_rss'] / 1e6:4.0f} MB  other work {measured['other_processors']:.2f}"
    )


def complaints(measured):
    """What must not be in a result that is shown to anybody."""
    where = f"{measured['scenario']} round {measured['round']} {measured['gateway']}"
    if measured["failed"]:
        yield f"{where}: {measured['failed']} calls failed: {measured['failures']} {measured['failure_sample'] or ''}"
    if measured["unfinished"]:
        yield f"{where}: {measured['unfinished']} calls were not answered in time"
    if not measured["good"]:
        yield f"{where}: no good answer"


def table(result, scenarios):
    """The result for people, as Markdown."""
    columns = ["scenario", "gateway", "req/s", "p50 ms", "p99 ms", "first event p99 ms", "gap p99 ms", "CPU us/request",
               "x nginx", "by round", "peak RSS MB", "failed"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for name, scenario in scenarios.items():
        for gateway in ("nginx", "tollgate"):
            slices = [s for s in result["slices"] if (s["scenario"], s["gateway"]) == (name, gateway)]
            if slices:
                lines.append("| " + " | ".join(row(scenario.title, gateway, slices)) + " |")
    for gateway, idle_use in result["idle"].items():
        lines.append(f"\n{gateway} idle: {idle_use['rss'] / 1e6:.0f} MB, {idle_use['cpu'] * 100:.1f} % of a processor.")
    other = statistics.median(s["other_processors"] for s in result["slices"])
    lines.append(f"\nMedians of {result['rounds']} rounds. Other work took {other:.2f} processors in the median slice.")
    return "\n".join(lines)


def row(title, gateway, slices):
    def median(value, digits=1):
        values = [value(measured) for measured in slices if value(measured) is not None]
        return f"{statistics.median(values):,.{digits}f}" if values else ""

    def quantile(times, which):
        return median(lambda measured: measured[times] and measured[times][which], 2)

    ratios = [measured["times_nginx"] for measured in slices if measured.get("times_nginx")]
    return [
        title, gateway, median(lambda measured: measured["requests_per_second"], 0),
        quantile("latency_ms", "p50"), quantile("latency_ms", "p99"),
        quantile("first_event_ms", "p99"), quantile("gap_ms", "p99"),
        median(lambda measured: measured["cpu_us_per_request"]),
        f"**{statistics.median(ratios):.2f}**" if ratios else "1",
        " ".join(f"{ratio:.2f}" for ratio in ratios),
        f"{max(measured['peak_rss'] for measured in slices) / 1e6:.0f}",
        str(sum(measured["failed"] + measured["unfinished"] for measured in slices)),
    ]
