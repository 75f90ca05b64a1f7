"""`cucm-lab scenarios`: the stories the lab can run."""

from __future__ import annotations

import argparse
from typing import Final

from cucm.errors import EXIT_OK

EPILOG: Final = "exit codes: 0 listed; 2 wrong words"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("--markdown", action="store_true", help="print docs/scenarios.md: every story with its acts")


def run(arguments: argparse.Namespace) -> int:
    """Print name, catalogue row and title of every packaged story, or all of them as a page."""
    from lab.cli.frame import print_json
    from lab.scenario import load_story
    from lab.topology import packaged

    stories = {name: load_story(name)[1] for name in packaged("scenarios")}
    if arguments.markdown:
        from lab.story_page import scenarios_page

        print(scenarios_page(stories), end="")
        return EXIT_OK
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
