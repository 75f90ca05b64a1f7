"""`cucm-lab run --failures`: every failure story, as a table of cause, repair and what came of it."""

from __future__ import annotations

import argparse
import textwrap
from ipaddress import IPv4Network

from cucm.errors import EXIT_NO, EXIT_OK
from lab.cli.frame import print_json
from lab.cli.run import Listener, play_and_keep
from lab.scenario import ActResult, Story, StoryResult, load_story
from lab.topology import load_topology, packaged
from lab.truth import NOWHERE, PhoneTruth

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
        print("\n".join(_table(results)) + "\n")
        print(
            f"{good} of {len(results)} failure stories failed as documented and migrated after the documented repair."
        )
    return EXIT_OK if good == len(results) else EXIT_NO


def _entry(result: StoryResult) -> str:
    lines = [f"{result.name} {result.story.catalogue}".strip() + f": {result.story.title}"]
    for label, text in _rows(result):
        lines += textwrap.wrap(f"{label}: {text}", WIDTH, initial_indent="    ", subsequent_indent="        ")
    return "\n".join(lines)


def _rows(result: StoryResult) -> list[tuple[str, str]]:
    rows = []
    if result.story.failure and len(result.acts) == len(result.story.acts):  # else it broke off
        before, after = result.acts[-2:]
        rows = [
            ("not migrated", _not_migrated(result.story, before) or "none"),
            ("cause", result.story.failure.cause),
            ("repair", result.story.failure.repair),
            ("afterwards", f"not migrated: {text}" if (text := _not_migrated(result.story, after)) else "migrated"),
        ]
    wrong = [*result.differences, *(f"missing in {line}" for line in result.missing_evidence)]
    if result.broken:
        wrong.append(f"broken off: {result.broken}")
    return rows + [("NOT as documented", text) for text in wrong]


def _not_migrated(story: Story, act: ActResult) -> str:
    """The phones that are not yet where the story means to end, and where they are registered."""
    return ", ".join(
        f"{phone} (registered nowhere)" if truth.registered == NOWHERE else f"{phone} (registered: {truth.registered})"
        for phone, truth in stranded(story, act).items()
    )


def stranded(story: Story, act: ActResult) -> dict[str, PhoneTruth]:
    """The truths of the phones that are not where the story means them to be in the end."""
    topology = load_topology(story.topology)
    wanted = {
        table.name: end.registered
        for name, end in story.acts[-1].expect.items()
        for table in topology.phones_named(name)
    }
    return {
        phone: truth for phone, truth in act.truths.items() if truth.registered != wanted.get(phone, truth.registered)
    }


def _table(results: list[StoryResult]) -> list[str]:
    """One line per story: its row of the catalogue, phones stranded, how the phone tells of it, what the repair did."""
    width = max(len(result.name) for result in results)
    lines = [f"{'story':<{width}}  row  stranded  after the repair"]
    for result in results:
        if len(result.acts) < len(result.story.acts) or result.broken:
            lines.append(f"{result.name:<{width}}  {result.story.catalogue:<3}  broken off")
            continue
        before, after = (stranded(result.story, act) for act in result.acts[-2:])
        phones = len(result.acts[-1].truths)
        end = f"{len(after)} stranded" if after else "migrated" if result.ended_as_expected else "NOT as documented"
        lines.append(f"{result.name:<{width}}  {result.story.catalogue:<3}  {len(before):>3} of {phones:<2}  {end}")
    return lines
