"""`cucm-lab scenarios`: the stories the lab can run."""

from __future__ import annotations

import argparse

from cucm.errors import EXIT_OK


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """None beyond what every command has."""


def run(arguments: argparse.Namespace) -> int:
    """Print name, catalogue row and title of every packaged story."""
    from lab.cli.frame import print_json
    from lab.scenario import load_story
    from lab.topology import packaged

    stories = {name: load_story(name)[1] for name in packaged("scenarios")}
    if arguments.json:
        print_json(
            {
                "scenarios": [
                    {
                        "name": name,
                        "title": story.title,
                        "teaches": story.teaches,
                        "catalogue": story.catalogue or None,
                        "is_failure": story.failure is not None,
                    }
                    for name, story in stories.items()
                ]
            }
        )
        return EXIT_OK
    width = max(map(len, stories))
    for name, story in sorted(stories.items(), key=lambda item: (item[1].failure is not None, item[0])):
        print(f"{name:<{width}}  {story.catalogue:<4} {story.title}")
    print("\nrun one with: cucm-lab run NAME   (failure stories end with the documented repair)")
    return EXIT_OK
