from __future__ import annotations

from lab.cli.frame import main

raise SystemExit(main())
