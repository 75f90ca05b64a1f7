"""The evidence of a failure story must be specific: it does not stand in the logs of a migration that went well."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.scenario import Evidence, load_story
from lab.topology import packaged

EVIDENCE = [
    pytest.param(item, id=f"{name}-{number}")
    for name in packaged("scenarios")
    if (failure := load_story(name)[1].failure)
    for number, item in enumerate(failure.evidence)
]


@pytest.mark.parametrize("item", EVIDENCE)
def test_evidence_is_not_in_the_logs_of_a_good_migration(item: Evidence, migrate_folder: Path) -> None:
    # the machines of other topologies have no log there; but the line may stand in a log of the same service
    service = item.log.partition("-")[0]
    logs = [path.read_text(encoding="utf-8") for path in migrate_folder.glob(f"{service}-*.log")]
    assert logs
    assert not any(item.line in log for log in logs)
