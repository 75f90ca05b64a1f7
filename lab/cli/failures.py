"""`cucm-lab run --failures`: every failure story, as a table of cause, repair and what came of it."""

from __future__ import annotations

import argparse
import textwrap
from ipaddress import IPv4Network

from cucm.errors import EXIT_NO, EXIT_OK
from lab.cli.frame import print_json
from lab.cli.run import Listener, play_and_keep
from lab.scenario import StoryResult, load_story
from lab.topology import packaged

WIDTH = 100


def run_failures(arguments: argparse.Namespace, network: IPv4Network) -> int:
    """Run all stories that have a [failure]; exit code 0 when every one ended as it should."""
    stories = {name: story for name in packaged("scenarios") if (story := load_story(name)[1]).failure}
    results: list[StoryResult] = []
    for number, (name, story) in enumerate(stories.items(), start=1):
        out = arguments.out / name if arguments.out else None
        result = play_and_keep(name, story, arguments, network, out, Listener())
        results.append(result)
        if not arguments.json:
            print(f"[{number}/{len(stories)}] {_entry(result)}\n", flush=True)
    good = sum(result.ended_as_expected for result in results)
    if arguments.json:
        print_json(
            {"stories": [result.as_json() for result in results], "as_expected": good, "stories_run": len(results)}
        )
    else:
        print(f"{good} of {len(results)} failure stories stranded the phone as documented and were repaired.")
    return EXIT_OK if good == len(results) else EXIT_NO


def _entry(result: StoryResult) -> str:
    failure = result.story.failure
    stranded = [
        name for act in result.acts[-2:-1] for name, end in act.truths.items() if end.registered != "destination"
    ]
    repaired = all(end.registered == "destination" for end in result.acts[-1].truths.values()) if result.acts else False
    rows = [
        ("stranded", ", ".join(stranded) or "none"),
        ("cause", failure.cause if failure else ""),
        ("repair", failure.repair if failure else ""),
        ("afterwards", "migrated" if repaired else "still stranded"),
        *(
            ("NOT as documented", text)
            for text in (*result.differences, *result.missing_evidence, result.broken)
            if text
        ),
    ]
    lines = [f"{result.name} {result.story.catalogue}".strip() + f": {result.story.title}"]
    for label, text in rows:
        lines += textwrap.wrap(f"{label}: {text}", WIDTH, initial_indent="    ", subsequent_indent="        ")
    return "\n".join(lines)
